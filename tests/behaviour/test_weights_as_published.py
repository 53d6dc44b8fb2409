"""Weights as others publish them, and their metadata: loaded or refused, never scrambled silently."""

import dataclasses
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

import vswin
from vswin.cli import main
from vswin.config.compose import compose_config
from vswin.config.schema import TrainConfig
from vswin.errors import InputError
from vswin.models.zoo import ModelSize, official_shapes
from vswin.training.run import run_training
from vswin.weights.build import build_from, load_weights
from vswin.weights.checkpoint import open_weights
from vswin.weights.files import save_checkpoint, write_safetensors
from vswin.weights.names import official_tensors

SMALL = ModelSize(8, (1, 2), (1, 2), window_size=(2, 3, 4))
INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def image_network() -> dict[str, np.ndarray]:
    """Makes an image network with windows of 3 x 3 under its authors' weight names."""
    shapes = official_shapes(ModelSize(8, (1, 2), (1, 2), (1, 3, 3), (1, 4, 4)), None)
    shapes = {name.removeprefix("backbone."): shape for name, shape in shapes.items()}
    shapes |= {"patch_embed.proj.weight": (8, 3, 4, 4), "head.weight": (10, 16), "head.bias": (10,)}
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def as_timm(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames as timm 1.0 does: merging belongs to the next stage, and the head is one layer deeper."""
    renamed = {name.replace("layers.0.downsample", "layers.1.downsample"): t for name, t in tensors.items()}
    return {name.replace("head.", "head.fc."): t for name, t in renamed.items()}


def as_hugging_face(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames as transformers' convert_swin_timm_to_pytorch.py does."""
    renamed = {}
    for key, tensor in tensors.items():
        name = key.replace("patch_embed.proj", "embeddings.patch_embeddings.projection")
        name = name.replace("patch_embed.norm", "embeddings.norm")
        name = name.replace("attn.proj", "attention.output.dense").replace("attn", "attention.self")
        name = name.replace("norm1", "layernorm_before").replace("norm2", "layernorm_after")
        name = name.replace("mlp.fc1", "intermediate.dense").replace("mlp.fc2", "output.dense")
        name = re.sub("^norm", "layernorm", re.sub("^layers", "encoder.layers", name))
        name = name.replace("head", "classifier") if name.startswith("head") else f"swin.{name}"
        if ".qkv." not in name:
            renamed[name] = tensor
            continue
        for part, third in zip(("query", "key", "value"), np.split(tensor, 3), strict=True):
            renamed[name.replace("qkv", part)] = third
    return renamed | {
        "swin.encoder.layers.0.blocks.0.attention.self.relative_position_index": np.zeros((9, 9), np.int64)
    }


def as_torchvision(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames as torchvision's image networks do: patches, stages and mergings are numbered, the index is flat."""
    renamed = {}
    for key, tensor in tensors.items():
        name = key.replace("patch_embed.proj", "features.0.0").replace("patch_embed.norm", "features.0.2")
        name = re.sub(r"layers\.(\d)\.blocks", lambda found: f"features.{2 * int(found[1]) + 1}", name)
        name = re.sub(r"layers\.(\d)\.downsample", lambda found: f"features.{2 * int(found[1]) + 2}", name)
        renamed[name.replace("mlp.fc1", "mlp.0").replace("mlp.fc2", "mlp.3")] = tensor
    return renamed | {"features.1.0.attn.relative_position_index": np.zeros(81, np.int64)}


def assert_same(read: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert read.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(read[name], tensor, err_msg=name)


@pytest.fixture
def call(monkeypatch) -> Callable[..., None]:
    def run(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["vswin", *map(str, arguments)])
        main()

    return run


@pytest.mark.parametrize("rename", [as_timm, as_hugging_face, as_torchvision])
def test_image_networks_under_the_names_of_libraries_load_as_under_their_own(tmp_path, image_network, rename):
    write_safetensors(tmp_path / "own.safetensors", image_network, {})
    expected = vswin.read_checkpoint(tmp_path / "own.safetensors")
    assert len(expected) == len(image_network) - 2
    write_safetensors(tmp_path / "renamed.safetensors", rename(image_network), {})
    assert_same(vswin.read_checkpoint(tmp_path / "renamed.safetensors"), expected)
    size = ModelSize(8, (1, 2), (1, 2), window_size=(2, 3, 3))
    models = [
        vswin.build_model(size, 5, tmp_path / f"{name}.safetensors", reset_head=True) for name in ("own", "renamed")
    ]
    own, renamed = (official_tensors(model) for model in models)
    for name in expected:
        np.testing.assert_array_equal(own[name], renamed[name], err_msg=name)
    if rename is as_hugging_face:
        incomplete = rename(image_network)
        del incomplete["swin.encoder.layers.1.blocks.1.attention.self.value.bias"]
        write_safetensors(tmp_path / "a.safetensors", incomplete, {})
        with pytest.raises(InputError, match=r"blocks\.1\.attention\.self\.value\.bias do not go together"):
            vswin.read_checkpoint(tmp_path / "a.safetensors")


@pytest.fixture(scope="module")
def official() -> dict[str, np.ndarray]:
    return official_tensors(vswin.build_model(SMALL, num_classes=5))


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.net.", "model._orig_mod.module.", "net.backbone?"])
@pytest.mark.parametrize("suffix", ["safetensors", "h5"])
def test_prefixes_of_wrappers_go_in_any_order_and_file_and_losses_are_listed(
    tmp_path, official, call, capsys, prefix, suffix
):
    if prefix.endswith("?"):  # the wrapper is inside the model
        tensors = {f"net.{name}".replace("backbone.", "backbone._orig_mod."): t for name, t in official.items()}
    else:
        tensors = {prefix + name: tensor for name, tensor in official.items()}
    tensors["model.criterion.weight"] = np.ones(5, np.float32)
    path = tmp_path / f"a.{suffix}"
    if suffix == "h5":
        with h5py.File(path, "w") as file:
            for name, tensor in tensors.items():
                file[name] = tensor
    else:
        write_safetensors(path, tensors, {})
    assert_same(vswin.read_checkpoint(path), official)
    call("inspect", path, "--tensors")
    assert "criterion.weight (no weight)" in capsys.readouterr().out
    write_safetensors(path, tensors | {"decoder.weight": np.ones(5, np.float32)}, {})
    with pytest.raises(InputError, match=r"decoder\.weight is unknown"):
        vswin.read_checkpoint(path)


def test_names_with_line_breaks_add_no_lines_to_what_is_printed(tmp_path, official, call, capsys):
    path, size = tmp_path / "a.safetensors", dataclasses.asdict(SMALL)
    classes = ["a\n  file: another", *"bcde"]
    save_checkpoint(path, official, {"size": size, "class_names": classes})
    call("inspect", path)
    assert r"a\n  file: another, b" in capsys.readouterr().out
    write_safetensors(path, official | {"x\n  use: anything": np.ones(1, np.float32)}, {})
    with pytest.raises(InputError, match=r"x\\n  use: anything is unknown"):
        vswin.read_checkpoint(path)


def write_shards(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    folder.mkdir()
    names, files = list(tensors), ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    half = len(names) // 2
    for file, part in zip(files, (names[:half], names[half:]), strict=True):
        write_safetensors(folder / file, {name: tensors[name] for name in part}, {})
    weight_map = {name: files[i >= half] for i, name in enumerate(names)}
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))


def test_shards_are_read_by_their_index_or_folder_and_a_folder_by_its_only_file(tmp_path, official):
    write_shards(tmp_path / "sharded", official)
    for path in (tmp_path / "sharded", tmp_path / "sharded" / INDEX):
        assert_same(vswin.read_checkpoint(path), official)
    (tmp_path / "whole").mkdir()
    write_safetensors(tmp_path / "whole" / "model.safetensors", official, {})
    assert_same(vswin.read_checkpoint(tmp_path / "whole"), official)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda index: index["weight_map"].popitem(), "do not hold the same tensors"),
        (lambda index: index["weight_map"].update(other="model-00001-of-00002.safetensors"), "other is in one alone"),
        (
            lambda index: index["weight_map"].update(other="gone.safetensors"),
            "gone.safetensors cannot be read",
        ),
        (lambda index: index["weight_map"].update(other="../a.safetensors"), "is not beside it"),
        (lambda index: index["weight_map"].update(other="/etc/passwd"), "is not beside it"),
        (lambda index: index["weight_map"].update(other=7), "is no index"),
        (lambda index: index.pop("weight_map"), "is no index"),
        (lambda index: index.update(weight_map=[1]), "is no index"),
    ],
)
def test_an_index_that_does_not_fit_its_parts_is_an_error(tmp_path, official, change, words):
    write_shards(tmp_path / "a", official)
    index = json.loads((tmp_path / "a" / INDEX).read_text())
    change(index)
    (tmp_path / "a" / INDEX).write_text(json.dumps(index))
    with pytest.raises(InputError, match=re.escape(words)):
        vswin.read_checkpoint(tmp_path / "a")


CLAIM = {"embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window_size": [2, 3, 4]}


@pytest.mark.parametrize(
    "claims",
    [
        {"size": CLAIM | {"depths": [9_999_999, 2]}},
        {"size": CLAIM | {"depths": [1] * 400_000}},
        {"size": CLAIM | {"embed_dim": 2_000_000_000}},
        {"size": CLAIM | {"num_heads": [-1, 2]}},
        {"size": CLAIM | {"window_size": [2, 3, 5]}},
        {"size": CLAIM | {"window_size": [2.0, 3, 4]}},
        {"size": CLAIM | {"window_size": [10**9] * 3}},
        {"size": CLAIM | {"mlp_ratio": float("nan")}},
        {"size": CLAIM | {"init_std": float("nan")}},
        {"size": CLAIM | {"drop_path_rate": -1}},
        {"num_classes": 7},
        {"class_names": ["a", "b"]},
        {"val_top1": "best"},
    ],
)
@pytest.mark.parametrize("suffix", ["safetensors", "h5"])
def test_what_a_file_claims_is_compared_with_its_tensors(tmp_path, official, claims, suffix):
    path = tmp_path / f"a.{suffix}"
    if suffix == "h5":
        save_checkpoint(path, official, claims)
    else:
        write_safetensors(path, official, {key: json.dumps(v) for key, v in claims.items()} | {"vswin_version": '"1"'})
    with pytest.raises(InputError, match=re.escape(str(path))) as caught:
        build_from(path)
    assert len(str(caught.value)) < 1000


def position_index(t: int, h: int, w: int) -> np.ndarray:
    """Computes the buffer relative_position_index as the official code does."""
    grid = np.stack(np.meshgrid(np.arange(t), np.arange(h), np.arange(w), indexing="ij")).reshape(3, -1)
    relative = (grid[:, :, None] - grid[:, None, :]).transpose(1, 2, 0) + np.array([t - 1, h - 1, w - 1])
    return relative @ [(2 * h - 1) * (2 * w - 1), 2 * w - 1, 1]


@pytest.mark.parametrize("said_by", ["metadata", "index"])
def test_a_window_with_as_many_rows_is_not_taken_for_another(tmp_path, said_by):
    """(3, 2, 2), (2, 3, 2) and (2, 2, 3) have 45 rows each."""
    there, here = (ModelSize(8, (1, 2), (1, 2), window_size=window) for window in ((2, 3, 2), (3, 2, 2)))
    tensors = official_tensors(vswin.build_model(there, num_classes=5))
    path = tmp_path / "a"
    if said_by == "metadata":
        save_checkpoint(path, tensors, {"size": vars(there)})
    else:
        index = {"backbone.layers.0.blocks.0.attn.relative_position_index": position_index(2, 3, 2)}
        write_safetensors(path, tensors | index, {})
    for load in (lambda: vswin.build_model(here, weights=path), lambda: build_from(path, here)):
        with pytest.raises(InputError, match=r"window \[2,3,2\], the model has \[3,2,2\]"):
            load()
    vswin.build_model(there, weights=path)
    vswin.build_model(here, weights=path, resize_bias=True)


def test_a_model_of_a_run_brings_its_classes_and_clip(tmp_path, official):
    about = {"size": vars(SMALL), "class_names": list("abcde"), "clip": {"num_frames": 4, "crop": 32}}
    save_checkpoint(tmp_path / "run" / "checkpoints" / "best.safetensors", official, about)
    model = vswin.build_model(SMALL, weights=tmp_path / "run")
    assert (model.num_classes, model.class_names, model.clip) == (5, list("abcde"), {"num_frames": 4, "crop": 32})
    finer = vswin.build_model(SMALL, num_classes=9, weights=tmp_path / "run", reset_head=True)
    assert (finer.num_classes, finer.class_names, finer.clip["crop"]) == (9, None, 32)
    with pytest.raises(InputError, match="num_classes"):
        vswin.build_model(SMALL, num_classes=9, weights=tmp_path / "run")
    new = vswin.build_model(SMALL)
    assert (new.num_classes, new.class_names, new.clip) == (400, None, None)


def test_dir_lists_the_api():
    assert {"build_model", "grad_cam", "load_views", "published_models", "read_checkpoint"} <= set(dir(vswin))
    assert all(getattr(vswin, name) for name in dir(vswin))


def test_uniform_is_the_old_word_for_segments(small_videos):
    video = small_videos / "dark" / "0.avi"
    settings = {"num_frames": 4, "num_clips": 1, "num_crops": 1, "resize": 40, "crop": 32}
    uniform, segments = (vswin.load_views(video, sampling=word, **settings) for word in ("uniform", "segments"))
    np.testing.assert_array_equal(uniform, segments)
    with pytest.raises(InputError, match="num_clips=4"):
        vswin.load_views(video, sampling="uniform")
    config = compose_config("train", ["clip.sampling=uniform", "clip.num_clips=1"], TrainConfig)
    assert config.clip.sampling == "segments"


HEADS = [
    (["dark", "bright"], "permuted 2 the same classes in another order: cls_head.fc_cls."),
    (["bright", "dusk"], "re-initialised 2 a head of other classes, without 'dark': cls_head.fc_cls.weight"),
    (["bright", "dark"], ""),
    (["0", "1"], ""),
]


@pytest.mark.parametrize(("classes", "row"), HEADS)
def test_a_head_follows_the_names_of_its_classes(tmp_path, classes, row):
    tensors = official_tensors(vswin.build_model(SMALL, num_classes=2))
    save_checkpoint(tmp_path / "a.h5", tensors, {"class_names": classes})
    model = vswin.build_model(SMALL, num_classes=2)
    report = load_weights(model, open_weights(tmp_path / "a.h5"), reset_head=True, class_names=["bright", "dark"])
    assert row in " ".join(str(report).split())
    assert row or not (report.permuted or report.reinitialised)
    head, given = (values["cls_head.fc_cls.weight"] for values in (official_tensors(model), tensors))
    assert np.array_equal(head, given[::-1] if row.startswith("permuted") else given) != row.startswith("re-init")


@pytest.mark.slow
@pytest.mark.parametrize(("classes", "row"), HEADS[:2])
def test_training_says_what_became_of_the_head_and_that_a_new_one_is_frozen(
    tmp_path, small_videos, compose_train, capsys, classes, row
):
    tensors = official_tensors(vswin.build_model(SMALL, num_classes=2))
    save_checkpoint(tmp_path / "a.h5", tensors, {"size": vars(SMALL), "class_names": classes})
    network = ("embed_dim=8", "depths=[1,2]", "num_heads=[1,2]", "window_size=[2,3,4]", "freeze=['cls_head.*']")
    clip = ("num_frames=4", "frame_stride=2", "resize=36", "crop=32")
    data = ("dataset=folder", f"dataset.root={small_videos}", "epochs=1", "batch_size=4")
    settings = (*(f"model.{setting}" for setting in network), *(f"clip.{setting}" for setting in clip))
    run_training(compose_train(*settings, *data, f"init_from={tmp_path / 'a.h5'}", f"output_dir={tmp_path / 'run'}"))
    said = " ".join(capsys.readouterr().out.split())
    assert row in said
    assert ("RANDOM WEIGHTS are frozen: the head is new" in said) == row.startswith("re-init")
    # The head is frozen, so training leaves it as loaded.
    head = vswin.read_checkpoint(tmp_path / "run")["cls_head.fc_cls.weight"]
    assert np.array_equal(head, tensors["cls_head.fc_cls.weight"][::-1]) == row.startswith("permuted")
