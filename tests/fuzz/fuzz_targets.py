"""The readers of files by others. Each must return a result or raise an `InputError` or a `DecodeError`."""

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import fuzz_seeds_data as data
import fuzz_seeds_weights as weights
import numpy as np
from fuzz_seeds_weights import Files

from vswin.config.load import CONFIG_DIR, check_overrides, differing_keys, from_run, load_config
from vswin.config.schema import DatasetConfig, EvaluateConfig, TrainConfig
from vswin.errors import DecodeError, InputError

ALLOWED = (InputError, DecodeError)


def _unchanged(files: Files) -> Files:
    return files


@dataclass(frozen=True)
class Target:
    """A reader and its inputs.

    Attributes:
        name: also the folder of its corpus.
        seeds: makes sound inputs.
        read: reads everything in a folder with the files of an input.
        finish: repairs checksums and the like, which would otherwise hide the damage.
        share: of the time, relative to the other readers.
    """

    name: str
    seeds: Callable[[], list[Files]]
    read: Callable[[Path], None]
    finish: Callable[[Files], Files] = _unchanged
    share: float = 1.0


def write_files(files: Files, folder: Path) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _dataset(name: str, folder: Path, **changes: object) -> DatasetConfig:
    values: dict[str, Any] = {
        "name": name,
        "root": str(folder),
        "source": "videos",
        "val_fraction": 0.5,
        "allow_missing": True,
        **changes,
    }
    return replace(_composed()[1].dataset, **values)


def _read_list(name: str) -> Callable[[Path], None]:
    """Reads a list for training and for validation, with the videos that the sound list names."""

    def read(folder: Path) -> None:
        from vswin.data.catalog import load_catalog

        path = str(next(path for path in folder.iterdir() if path.name in _LISTS))
        uses = [{"train_list": path}, {"train_list": path, "val_list": path}]
        uses.append({"train_list": path, "num_classes": 3} if name == "folder" else {"val_list": path})
        errors = []
        for lists in uses:
            try:
                catalog = load_catalog(_dataset(name, _video_root(name), **lists))
            except InputError as error:
                errors.append(error)
            else:
                assert all(
                    0 <= label < len(catalog.class_names)
                    for label in [label for video in (*catalog.train, *catalog.val) for label in video.labels]
                )
        if len(errors) == len(uses):
            raise errors[0]

    return read


_LISTS = ("list.txt", "list.csv", "train.json", "brush_hair_test_split1.txt")
_VIDEOS = {
    "folder": ("a/1.avi", "b/2.avi", "a/3.avi", "b/4.avi"),
    "ucf101": (
        *(f"ApplyLipstick/v_ApplyLipstick_g0{group}_c01.avi" for group in (1, 2)),
        *(f"Archery/v_Archery_g0{group}_c01.avi" for group in (1, 2)),
    ),
    "hmdb51": tuple(f"brush_hair/{name}_brush_hair_{name}.avi" for name in ("a", "b #2;", "c")),
    "kinetics400": (
        "train/abseiling/0aaaaaaaaaa_000001_000011.mp4",
        "0bbbbbbbbbb.mp4",
        "0cccccccccc_000003_000013.mp4",
    ),
    "sthv2": ("0.webm", "1.webm", "2.webm", "3.webm"),
}


@cache
def _video_root(name: str) -> Path:
    """Makes empty files for the videos of a data set, which are only looked up."""
    root = Path(os.environ["VSWIN_FUZZ_FOLDER"]) / f"videos_{name}"
    for video in _VIDEOS[name]:
        (root / video).parent.mkdir(parents=True, exist_ok=True)
        (root / video).touch()
    return root


def _read_weights(folder: Path) -> None:
    from vswin.weights.checkpoint import describe_checkpoint, open_checkpoint

    paths = [folder] if (folder / "saved_model.pb").exists() else [path for path in folder.iterdir() if path.is_file()]
    for path in paths:
        checkpoint = open_checkpoint(path)
        describe_checkpoint(checkpoint, is_long=True)
        _use(checkpoint.tensors)


def _read_archive(folder: Path) -> None:
    from vswin.weights.files import unpack_saved_model

    (path,) = folder.iterdir()
    with tempfile.TemporaryDirectory() as into:
        unpack_saved_model(path, Path(into))
    _read_weights(folder)


def _read_torch(folder: Path) -> None:
    from vswin.weights.torch_file import read_torch_file

    (path,) = folder.iterdir()
    _use(read_torch_file(path))


def _read_safetensors(folder: Path) -> None:
    from vswin.weights.files import read_safetensors

    (path,) = folder.iterdir()
    _use(read_safetensors(path)[0])
    _read_weights(folder)


def _read_saved_model(folder: Path) -> None:
    from vswin.weights.files import read_input_shape, read_saved_model

    with suppress(InputError):
        read_input_shape(folder)
    _use(dict(read_saved_model(folder)))
    _read_weights(folder)


def _use(tensors: dict[str, np.ndarray]) -> None:
    """Reads every value; small files must contain small values."""
    assert sum(tensor.nbytes for tensor in tensors.values()) < 2**28
    for tensor in tensors.values():
        np.asarray(tensor).tobytes()


def _read_packed(folder: Path) -> None:
    from vswin.data.packed import load_packed

    class_names, train, val, store = load_packed(_dataset("folder", folder))
    for record in (*train, *val):
        assert 0 <= record.label < len(class_names)
        with suppress(DecodeError):
            store.read(record.path)


def _read_tfds(folder: Path) -> None:
    from vswin.data.tfds_sets import load_tfds

    class_names, train, val, store = load_tfds(_dataset("folder", folder, tfds="a", tfds_dir=str(folder)))
    for record in (*train, *val):
        assert 0 <= record.label < len(class_names)
        with suppress(DecodeError), store.open(record.path) as reader:
            reader.read(np.array([0, reader.num_video_frames - 1]), np.asarray)


def _read_run(folder: Path) -> None:
    """Evaluates and resumes a run as far as its configuration allows."""
    composed, trained = _composed()
    composed = composed.copy()
    composed.run = str(folder)
    evaluated = load_config(from_run(composed, [f"run={folder}"]), EvaluateConfig)
    assert not any(value in str(evaluated) for value in _secrets())
    differing = differing_keys(trained, folder)
    assert not any(value in str(differing) for value in _secrets())


def _secrets() -> list[str]:
    return [os.environ[key] for key in ("HOME", "PATH") if len(os.environ.get(key, "")) > 4]


@cache
def _composed() -> tuple[Any, TrainConfig]:
    from hydra import compose, initialize_config_dir
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store("evaluate_schema", EvaluateConfig)
    ConfigStore.instance().store("train_schema", TrainConfig)
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return compose("evaluate", []), load_config(compose("train", ["dataset=folder", "seed=3"]), TrainConfig)


def _read_command_line(folder: Path) -> None:
    """Composes `vswin data check OVERRIDE ...`."""
    from vswin.config.compose import compose_config
    from vswin.config.schema import DataCheckConfig

    text = (folder / "overrides.txt").read_text(encoding="utf-8", errors="surrogateescape")
    overrides = [line.replace("\0", "") for line in text.split("\n") if line.replace("\0", "")]
    check_overrides(overrides, TrainConfig)  # as train.py does before Hydra parses the rest
    compose_config("data_check", overrides, DataCheckConfig)


def _read_results(folder: Path) -> None:
    """Adds a row to a table."""
    from vswin.evaluation.published import Comparison
    from vswin.evaluation.report import append_result
    from vswin.runs.metrics import Metrics

    metrics = Metrics(0.5, 1.0, (0.2, 0.8), (0.7, 1.0), 0.5, 0.5, 1.0, 10, 0)
    protocol = {"num_frames": 32, "frame_stride": 2, "crop": 224, "num_clips": 4, "num_crops": 3, "sampling": "dense"}
    protocol |= {"spacing": "centred", "average": "prob", "date": "2026-11-25T12:00:00+00:00"}
    protocol |= {"weights": {"init_from": "a"}, "dataset": {"name": "folder", "split": None, "num_missing": 0}}
    append_result(folder, metrics, Comparison(None, "a is unknown"), protocol, folder / "report")


def _read_video(folder: Path) -> None:
    """Reads the first frames and the last with each decoder, from disk and from memory."""
    from vswin.data.decode import VideoReader

    (path,) = folder.iterdir()
    last: DecodeError | None = None
    for decoder, content in (("auto", None), ("pyav", path.read_bytes()), ("opencv", path.read_bytes())):
        try:
            with VideoReader(path, decoder, 5.0, content) as reader:
                numbers = np.arange(min(reader.num_video_frames, 8))
                frames = reader.read(np.append(numbers, min(reader.num_video_frames, 1000) - 1))
                assert frames.dtype == np.uint8
                assert frames.shape[0] == len(numbers) + 1
                assert len(reader.read(numbers[-1:], may_skip=True)) == 1
        except DecodeError as error:
            last = error
    if last is not None:
        raise last


TARGETS = {
    target.name: target
    for target in (
        Target("list", data.lists, _read_list("folder")),
        Target("ucf101", data.ucf101, _read_list("ucf101")),
        Target("hmdb51", data.hmdb51, _read_list("hmdb51")),
        Target("kinetics", data.kinetics, _read_list("kinetics400")),
        Target("sthv2", data.sthv2, _read_list("sthv2")),
        Target("packed", data.packed, _read_packed, data.with_hash),
        Target("tfds", data.tfds, _read_tfds),
        Target("run_config", data.run_configs, _read_run),
        Target("command_line", data.command_lines, _read_command_line),
        Target("results", data.results, _read_results),
        Target("safetensors", weights.safetensors, _read_safetensors),
        Target("torch", weights.torch_files, _read_torch),
        Target("torch_pickle", weights.torch_pickles, _read_torch, weights.with_zip),
        Target("saved_model", weights.saved_model, _read_saved_model),
        Target("tar", weights.tars, _read_archive, weights.with_checksums),
        Target("archive", weights.archives, _read_archive),
        Target("video", data.videos, _read_video, share=3.0),
    )
}
