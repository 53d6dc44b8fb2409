import re

import pytest

from vswin.checks import check_random_is_meant
from vswin.errors import InputError


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("batch_size=0", "batch_size=0: at least 1"),
        ("epochs=0", "epochs=0: at least 1"),
        ("runtime.precision=fp16", "runtime.precision=fp16: one of float32, bfloat16, float16"),
        ("clip.num_crops=2", "clip.num_crops=2: one of 1, 3"),
        ("clip.crop=300", "clip.resize=64 is smaller than clip.crop=300"),
        ("clip.sampling=random", "clip.sampling=random: one of dense, segments"),
        ("augment.flip=2", "augment.flip=2.0: a share between 0 and 1"),
        ("augment.crop_area=[0.5,0.1]", "0 < smallest <= largest <= 1"),
        ("augment.crop_aspect=[1]", "two numbers"),
        ("model.dropout=1", "model.dropout=1.0"),
        ("model.window_size=[7,7]", "three numbers"),
        ("optimizer.schedule=step", "one of cosine, cosine_per_epoch"),
        ("seed=-1", "seed=-1: at least 0"),
    ],
)
def test_values_out_of_range_are_named(override, words, compose_train):
    with pytest.raises(InputError, match=re.escape(words)):
        compose_train(override)


def test_segments_take_one_clip(compose_train):
    with pytest.raises(InputError, match=r"clip\.num_clips=4"):
        compose_train("dataset=ucf101", "clip.sampling=segments")
    assert compose_train("dataset=ucf101", "clip=segments32").clip.num_clips == 1


def test_random_weights_are_evaluated_only_if_asked_for():
    with pytest.raises(InputError, match=r"run=.*init_from=.*init_from=null evaluates random weights"):
        check_random_is_meant(None, ["model=swin_micro"])
    check_random_is_meant(None, ["model=swin_micro", "init_from=null"])
    check_random_is_meant("outputs/run", [])
