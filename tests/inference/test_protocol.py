import json
import shutil

import pytest

from vswin.errors import InputError
from vswin.inference.model import find_protocol
from vswin.weights.checkpoint import open_checkpoint
from vswin.weights.files import save_checkpoint

KINETICS = (32, 2, 224, 224, 4, 3, "dense", "centred", 4)
OF_RUN = (4, 2, 32, 32, 2, 3, "dense", "centred", 4)


def clip_of(weights, *overrides):
    return tuple(vars(find_protocol(str(weights), overrides).config.clip).values())


def test_a_run_is_predicted_as_it_is_evaluated(run_folder):
    protocol = find_protocol(str(run_folder))
    assert tuple(vars(protocol.config.clip).values()) == OF_RUN  # the short side equals the crop, not the training size
    assert (protocol.config.average, protocol.config.init_from) == ("prob", str(run_folder))
    assert protocol.describe() == (
        "average of 6 views each (2 clips x 3 crops; 4 frames, one in 2; short side 32, 32 x 32 px)"
    )


def test_overrides_win_over_the_run(run_folder):
    protocol = find_protocol(str(run_folder), ["clip.num_clips=1", "clip.num_crops=1", "clip.frame_stride=1"])
    assert protocol.describe() == "1 view each (1 clip x 1 crop; 4 frames in a row; short side 32, 32 x 32 px)"
    assert clip_of(run_folder, "clip.crop=64", "clip.resize=70")[2:4] == (70, 64)


def test_a_checkpoint_has_the_protocol_of_its_run_wherever_it_is(run_folder, tmp_path):
    inside = run_folder / "checkpoints" / "best.safetensors"
    shutil.copy(inside, tmp_path / "moved.h5")
    for path in (inside, tmp_path / "moved.h5"):
        protocol = find_protocol(str(path))
        assert tuple(vars(protocol.config.clip).values()) == OF_RUN
        assert protocol.config.init_from == str(path)
        assert protocol.is_known


@pytest.mark.parametrize(
    ("name", "clip"),
    [
        ("swin_tiny_patch244_window877_kinetics400_1k", KINETICS),
        ("swin_base_patch244_window877_kinetics600_1k", KINETICS),  # the name on the TF-Hub page
        ("swin_base_patch244_window1677_sthv2", (32, 2, 224, 224, 1, 3, "segments", "centred", 4)),
    ],
)
def test_a_published_name_has_the_published_protocol(name, clip):
    assert clip_of(name) == clip
    assert clip_of(name, "clip.num_crops=1") == (*clip[:5], 1, *clip[6:])


def test_weights_that_say_nothing_get_the_clips_of_kinetics_and_it_is_said(run_folder, tmp_path):
    save_checkpoint(tmp_path / "bare.h5", open_checkpoint(run_folder).tensors, {})
    protocol = find_protocol(str(tmp_path / "bare.h5"))
    assert tuple(vars(protocol.config.clip).values()) == KINETICS
    assert not protocol.is_known
    assert protocol.origin.startswith("protocol of Kinetics, as they do not say theirs")


@pytest.mark.parametrize(
    "change", [{"num_frames": "${oc.env:HOME}"}, {"crop": 0}, {"sampling": "random"}, {"num_clips": None}]
)
def test_damaged_or_hostile_clips_of_weights_are_refused(run_folder, tmp_path, change):
    checkpoint = open_checkpoint(run_folder)
    metadata = {"clip": checkpoint.metadata["clip"] | change}
    save_checkpoint(tmp_path / "odd.h5", checkpoint.tensors, metadata)
    with pytest.raises(InputError, match="what it says of its clips is damaged"):
        find_protocol(str(tmp_path / "odd.h5"))


def test_an_export_keeps_the_protocol_of_its_run_and_others_have_the_clips_of_their_signature(exported, tmp_path):
    assert clip_of(exported) == OF_RUN
    folder = shutil.copytree(exported, tmp_path / "other")
    metadata = json.loads((folder / "assets" / "vswin.json").read_text())
    (folder / "assets" / "vswin.json").write_text(json.dumps(metadata | {"clip": None}))
    assert clip_of(folder) == (8, 2, 48, 48, 4, 3, "dense", "centred", 4)
    (folder / "saved_model.pb").write_bytes((folder / "saved_model.pb").read_bytes()[:-100])
    with pytest.raises(InputError, match="damaged"):
        clip_of(folder)


@pytest.mark.parametrize(
    ("weights", "overrides", "words"),
    [
        ("swin_tinny_patch244_window877_kinetics400_1k", [], "there is no such file or folder, and no published model"),
        ("swin_tiny_patch4_window7_224", [], "no published model"),  # an image model
        (None, ["clip.nun_frames=3"], "there is no key 'clip.nun_frames'; did you mean 'clip.num_frames'"),
        (None, ["clip.num_frames"], "--set clip.num_frames: write KEY=VALUE"),
        (None, ["dataset.root=x"], "dataset.root does not matter here"),
        (None, ["run=x"], "run does not matter here"),
        (None, ["clip.num_crops=2"], "clip.num_crops=2: one of 1, 3"),
        (None, ["weights=ema"], "only a run with optimizer.ema_decay averages weights"),
    ],
)
def test_what_is_wrong_is_said_with_a_way_out(run_folder, weights, overrides, words):
    with pytest.raises(InputError, match=words):
        find_protocol(weights or str(run_folder), overrides)
