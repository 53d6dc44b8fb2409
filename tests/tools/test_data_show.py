import dataclasses

import numpy as np
import pytest
from PIL import Image, ImageSequence

from vswin.config.compose import compose_config
from vswin.config.schema import DataShowConfig
from vswin.data.bad_videos import BadVideos
from vswin.data.catalog import load_catalog
from vswin.data.order import Order
from vswin.data.pipeline import make_train_dataset
from vswin.errors import InputError
from vswin.tools import data_show as show
from vswin.tools.data_show import run_show


@pytest.fixture
def compose_show(small_videos, tmp_path):
    def composed(*overrides: str) -> DataShowConfig:
        fixed = ["dataset=folder", f"dataset.root={small_videos}", "clip=8x1_64px", f"output={tmp_path / 'a.png'}"]
        return compose_config("data_show", [*fixed, *overrides], DataShowConfig)

    return composed


def test_a_sheet_has_two_rows_of_eight_frames_for_each_clip(compose_show, tmp_path):
    run_show(compose_show("augment=strong", "num_clips=2"))
    with Image.open(tmp_path / "a.png") as sheet:
        assert sheet.size[0] > 8 * 112
        assert sheet.size[1] > 2 * 2 * 112
    run_show(dataclasses.replace(compose_show("num_clips=3"), output=str(tmp_path / "a.gif")))
    with Image.open(tmp_path / "a.gif") as film:
        # GIF stores equal frames once, with a longer duration.
        durations = [frame.info["duration"] for frame in ImageSequence.Iterator(film)]
    assert len(durations) > 1
    assert sum(durations) == 8 * 100


def test_what_is_shown_is_what_the_first_step_of_a_run_sees(compose_show):
    config = compose_show("augment=sthv2", "augment.erasing=0", "num_clips=4", "augment.repeats=2", "seed=5")
    catalog = load_catalog(config.dataset)
    order = Order(seed=5, batch_size=4, epochs=1, repeats=2)
    dataset = make_train_dataset(catalog.train, config.clip, config.augment, True, order, BadVideos())
    batch = next(iter(dataset))
    shown = show.take_step(config, show._fill_slots(config, catalog))
    assert np.array_equal(shown.clips, batch["clips"])


def test_captions_say_what_was_drawn(compose_show):
    options = ("augment=strong", "augment.erasing=1", "augment.cutmix=0", "augment.color_jitter=[0.4,0,0,0]")
    config = compose_show(*options, "dataset.allow_flip=false")
    slots = show._fill_slots(config, load_catalog(config.dataset))
    step = show.take_step(config, slots)
    for i in range(4):
        title, (host, device) = show._caption(slots[i], step, i)
        assert title.startswith(f"{i + 1}   ")
        assert "class" in title
        for words in ("frames ", "crop ", " of 77 x 64", "brightness jittered x", "sides cut by"):
            assert words in host
        assert "mirrored" not in host
        assert f"mixup with clip {(i ^ 1) + 1}, labels" in device
        assert "erased" in device


def test_a_video_that_cannot_be_decoded_is_named_and_its_partner_not_mixed(compose_show, small_videos):
    for path in small_videos.glob("*/*.avi"):
        if path.stem in ("0", "1", "2"):
            path.write_bytes(b"no video")
    config = compose_show("augment=strong", "num_clips=8")
    slots = show._fill_slots(config, load_catalog(config.dataset))
    step = show.take_step(config, slots)
    bad = [place for place, slot in enumerate(slots) if slot.clip is None]
    assert 0 < len(bad) < 8
    for i in bad:
        assert show._caption(slots[i], step, i)[1][0].startswith("cannot be decoded: ")
        assert step.mixing.share[i ^ 1] == 1
    run_show(config)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["output=a.jpg"], r"output=a\.jpg: the name must end in \.png, \.gif, \.mp4"),
        (["augment=strong", "num_clips=3"], r"num_clips=3: a multiple of 2, e\.g\. 4"),
        (["augment.repeats=3"], r"num_clips=4: a multiple of 3, e\.g\. 6"),
        (["num_clips=0"], r"num_clips=0: at least 1"),
    ],
)
def test_what_cannot_be_shown_is_refused(compose_show, overrides, message):
    with pytest.raises(InputError, match=message):
        run_show(compose_show(*overrides))
