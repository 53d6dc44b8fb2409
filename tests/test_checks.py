import re

import pytest

from vswin.config.checks import check_divides, check_random_is_meant
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
        ("augment.flip=2", "augment.flip=2.0: at least 0 and at most 1"),
        ("augment.crop_area=[0.5,0.1]", "augment.crop_area=[0.5, 0.1]: the smallest, then the largest"),
        ("augment.crop_aspect=[1]", "augment.crop_aspect=[1.0]: 2 numbers, each above 0"),
        ("augment.rand_augment=timm", "augment.rand_augment=timm: one of none, official, no_flip"),
        ("augment.rand_augment_ops=19", "augment.rand_augment_ops=19: at least 0 and at most 18"),
        ("augment.rand_augment_magnitude=31", "augment.rand_augment_magnitude=31: at least 0 and at most 30"),
        ("augment.color_jitter=[0.4]", "augment.color_jitter=[0.4]: 4 numbers, each at least 0"),
        ("augment.color_jitter=[0,0,0,0.6]", "hue, the last at most 0.5"),
        ("augment.color_jitter=[0,-1,0,0]", "4 numbers, each at least 0"),
        ("augment.erasing=-0.1", "augment.erasing=-0.1: at least 0 and at most 1"),
        ("augment.mixup=-1", "augment.mixup=-1.0: at least 0.05 and at most 100, or 0"),
        ("augment.cutmix=0.01", "augment.cutmix=0.01: at least 0.05"),
        ("augment.label_smoothing=2", "augment.label_smoothing=2.0: at least 0 and at most 1"),
        ("augment.repeats=0", "augment.repeats=0: at least 1"),
        ("model.dropout=1", "model.dropout=1.0: at least 0 and below 1"),
        ("model.window_size=[7,7]", "model.window_size=[7, 7]: 3 numbers, each at least 1"),
        ("model.freeze_stages=-1", "model.freeze_stages=-1: at least 0"),
        ("optimizer.schedule=step", "one of cosine, cosine_per_epoch"),
        ("optimizer.layer_decay=0", "optimizer.layer_decay=0.0: above 0 and at most 1"),
        ("optimizer.layer_decay=1.1", "optimizer.layer_decay=1.1: above 0"),
        ("optimizer.ema_decay=1", "optimizer.ema_decay=1.0: above 0 and below 1, or null"),
        ("optimizer.ema_decay=0", "optimizer.ema_decay=0.0: above 0 and below 1, or null"),
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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((5, 1, 1, True, 1), "one device in pairs, which augment.mixup and augment.cutmix mix; .*: 4 or 6"),
        ((6, 2, 1, True, 1), "2 devices in pairs.*: 4 or 8"),
        ((8, 2, 4, True, 1), "2 devices with runtime.micro_batches=4 each in pairs.*: 16"),
        ((8, 1, 1, False, 3), "one device with augment.repeats=3 clips of each video; .*: 6 or 9"),
        ((8, 2, 1, True, 3), "augment.repeats=3 .*: 12$"),
    ],
)
def test_a_batch_of_pairs_and_repeats_is_answered_with_the_nearest_sizes(arguments, words):
    with pytest.raises(InputError, match=f"batch_size={arguments[0]} cannot be divided among .*{words}"):
        check_divides(*arguments)


def test_a_batch_that_is_whole_in_every_way_passes():
    check_divides(48, 2, 3, True, 8)
    check_divides(3, 3)
