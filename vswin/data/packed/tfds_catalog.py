"""Data sets that TFDS has prepared, or shall download and prepare. Called by `vswin.data.catalog`.

TFDS stores the frames of a video as JPEG images; they stay that, and `vswin.data.packed.tfds_frames` decodes those
that are sampled.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from vswin.data.packed.examples import read_int
from vswin.data.packed.record_files import FILE_FORMATS, open_records
from vswin.data.packed.tfds_frames import TfdsVideos, number_videos
from vswin.data.records import VideoRecord
from vswin.errors import InputError
from vswin.schema import DatasetConfig

logger = logging.getLogger("vswin")

# The archive, what is unpacked from it, and the frames take about as much each.
_DISK_PER_DOWNLOAD = 3
_NUM_THREADS = 8
_VERSION = re.compile(r"\d{1,9}\.\d{1,9}\.\d{1,9}")
# Under these keys of `features.json` stand names of Python classes.
_NAMES_OF_MODULES = {"type", "pythonClassName", "python_class_name", "proto_cls", "protoCls"}


class _Prepared(NamedTuple):
    """Says what a folder holds.

    Attributes:
        full_name: Name in TFDS, with configuration and version.
        class_names: In the order of TFDS.
        file_format: Of the records.
        files: Names of the files of each split.
    """

    full_name: str
    class_names: tuple[str, ...]
    file_format: str
    files: dict[str, list[str]]


def name_in_tfds(dataset: DatasetConfig) -> str:
    """Names a data set as TFDS does, e.g. "ucf101/ucf101_1".

    UCF101 has a configuration for each official split. The one that TFDS takes by itself, `ucf101_1_256`, squashes
    the frames to 256 x 256 and must be asked for: dataset.tfds=ucf101/ucf101_1_256.

    Raises:
        InputError: If the data set is not in TFDS.
    """
    if dataset.tfds is None:
        raise InputError(
            f"dataset.source=tfds: no name in TFDS is known for dataset={dataset.name}; set dataset.tfds, or take "
            "dataset.source=videos"
        )
    return f"ucf101/ucf101_{dataset.split}" if dataset.tfds == "ucf101" else dataset.tfds


def find_prepared(dataset: DatasetConfig) -> Path | None:
    """Finds the newest version that TFDS has prepared, without importing TFDS; None if there is none."""
    if dataset.tfds is None:
        return None
    versions = [
        (tuple(int(part) for part in folder.name.split(".")), folder)
        for folder in (_data_dir(dataset) / name_in_tfds(dataset)).glob("*.*.*")
        if _VERSION.fullmatch(folder.name) and (folder / "dataset_info.json").is_file()
    ]
    return max(versions)[1] if versions else None


def explain_tfds(dataset: DatasetConfig) -> str:
    """Says how to get a data set from TFDS, and what that takes: one half sentence."""
    name = name_in_tfds(dataset)
    return (
        f"let TFDS download and prepare {name}: dataset.download=true ({_describe_size(name)}; needs the program "
        f"ffmpeg, and hours), or set dataset.tfds_dir to where it is prepared (now {_data_dir(dataset)})"
    )


def load_tfds(
    dataset: DatasetConfig, class_names: Sequence[str] | None = None
) -> tuple[tuple[str, ...], list[VideoRecord], list[VideoRecord], TfdsVideos]:
    """Loads a data set that TFDS has prepared; with `download` it is made to prepare it first.

    Args:
        dataset: Name in TFDS, folder, split.
        class_names: Names in the order of the class indices; None takes the order of TFDS.

    Returns:
        Class names, records of training and of validation (the split `validation`, or where there is none `test`),
        and the store that opens them. The videos are named by their places: TFDS does not keep their names.

    Raises:
        InputError: If it is not there, cannot be prepared, holds no labelled videos, or has other classes.
    """
    folder = find_prepared(dataset)
    if folder is None and not dataset.download:
        raise InputError(f"TFDS has no {name_in_tfds(dataset)} in {_data_dir(dataset)}; {explain_tfds(dataset)}")
    folder = folder or _prepare(dataset)
    prepared = _describe(folder)
    names, file_format = prepared.class_names, prepared.file_format
    classes = tuple(class_names or names)
    labels = _map_classes(names, classes, folder)
    if file_format not in FILE_FORMATS:
        raise InputError(f"{folder} is in the format {file_format}; prepare it as one of {', '.join(FILE_FORMATS)}")
    records: list[list[VideoRecord]] = []
    places: dict[str, tuple[str, int]] = {}
    for split in ("train", "validation" if "validation" in prepared.files else "test"):
        found = _read_labels(folder, file_format, prepared.files.get(split, []), len(names))
        named = number_videos(prepared.full_name, split, [(file, [p for p, _ in rows]) for file, rows in found])
        places |= named
        records.append(
            [
                VideoRecord(path, labels[label])
                for path, label in zip(named, (label for _, rows in found for _, label in rows), strict=True)
            ]
        )
    if folder.parent.name.endswith("_256"):
        logger.warning("%s has frames squashed to 256 x 256; the official recipe keeps their proportions", folder)
    logger.info("reads %s from %s: only the sampled ones of its JPEG frames are decoded", prepared.full_name, folder)
    return classes, records[0], records[1], TfdsVideos(folder, file_format, places)


def _data_dir(dataset: DatasetConfig) -> Path:
    default = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    return Path(dataset.tfds_dir or default).expanduser()


def _import_tfds() -> Any:
    import tensorflow_datasets

    return tensorflow_datasets


def _describe_size(name: str) -> str:
    num_bytes = _download_bytes(name)
    if not num_bytes:
        return "TFDS does not say how much"
    return f"{num_bytes / 1e9:.1f} GB to download, about {_DISK_PER_DOWNLOAD * num_bytes / 1e9:.0f} GB of disk"


def _download_bytes(name: str) -> int:
    """Adds up what TFDS knows of the archives; 0 if it knows nothing."""
    tfds = _import_tfds()
    try:
        infos = tfds.builder_cls(name.split("/")[0]).url_infos
    except ValueError as error:  # a name it does not know
        raise InputError(f"dataset.tfds={name}: {str(error).splitlines()[0]}") from error
    except ImportError:  # TFDS 4.9.10 does not bring all that it imports
        return 0
    return sum(int(info.size) for info in (infos or {}).values())


def _prepare(dataset: DatasetConfig) -> Path:
    """Has TFDS download and prepare a data set, having said what that takes; gives the folder."""
    name, data_dir = name_in_tfds(dataset), _data_dir(dataset)
    num_bytes = _download_bytes(name)
    if shutil.which("ffmpeg") is None:
        raise InputError(
            f"dataset.download=true: TFDS takes the frames of {name} with the program ffmpeg, which is not on the "
            "PATH; install it, e.g. `apt install ffmpeg`, or use the videos themselves (dataset.source=videos)"
        )
    data_dir.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(data_dir).free
    logger.info(
        "TFDS downloads and prepares %s in %s, once: %s, %.1f GB are free; it takes hours",
        name,
        data_dir,
        _describe_size(name),
        free / 1e9,
    )
    if free < _DISK_PER_DOWNLOAD * num_bytes:
        raise InputError(
            f"TFDS needs {_DISK_PER_DOWNLOAD * num_bytes / 1e9:.0f} GB for {name}, and {free / 1e9:.1f} GB are free "
            f"in {data_dir}; set dataset.tfds_dir to a folder elsewhere"
        )
    tfds = _import_tfds()
    try:
        builder = tfds.builder(name, data_dir=str(data_dir))
        builder.download_and_prepare()
    except (OSError, ImportError, tfds.download.DownloadError, subprocess.CalledProcessError) as error:
        raise InputError(
            f"TFDS could not prepare {name}: {error}. What is downloaded stays in {data_dir / 'downloads'}"
        ) from error
    return Path(builder.data_dir)


def _describe(folder: Path) -> _Prepared:
    """Reads what TFDS says of a folder, which somebody else may have prepared."""
    try:
        _check_imports(json.loads((folder / "features.json").read_text(encoding="utf-8")))
        builder = _import_tfds().builder_from_directory(folder)
        _check_features(builder, folder)
        info = builder.info
        files = {name: [Path(file).name for file in split.filepaths] for name, split in info.splits.items()}
        return _Prepared(info.full_name, tuple(info.features["label"].names), info.file_format.value, files)
    except InputError:
        raise
    except Exception as error:  # TFDS passes on whatever the protocol buffers, TensorFlow and its own checks raise
        reason = f"{type(error).__name__}: {str(error)[:300]}"
        raise InputError(f"{folder} cannot be read ({reason}); prepare the data set anew") from error


def _check_imports(described: Any) -> None:
    """Refuses features of other packages: TFDS imports whatever module `features.json` names."""
    if isinstance(described, list):
        described = dict(enumerate(described))
    if not isinstance(described, dict):
        return
    for key, value in described.items():
        # Older versions of TFDS wrote JSON into JSON.
        _check_imports(json.loads(value) if key == "content" and isinstance(value, str) else value)
        if key in _NAMES_OF_MODULES and "." in str(value) and not str(value).startswith("tensorflow_datasets."):
            raise InputError(f"features.json wants the Python module of {str(value)[:200]!r}, which is not imported")


def _check_features(builder: Any, folder: Path) -> None:
    tfds = _import_tfds()
    features = builder.info.features
    kinds = {"video": tfds.features.Sequence, "label": tfds.features.ClassLabel}
    if not all(name in features and isinstance(features[name], kind) for name, kind in kinds.items()):
        raise InputError(
            f"{folder} is no data set of labelled videos: it needs the features `video` (tfds.features.Video) and "
            f"`label` (ClassLabel), and has {', '.join(features)}"
        )


def _map_classes(names: Sequence[str], classes: Sequence[str], folder: Path) -> list[int]:
    """Gives our index of each class of TFDS."""
    if sorted(names) != sorted(classes):
        differing = sorted(set(names) ^ set(classes))
        raise InputError(f"{folder} has other classes than the data set: they differ in {', '.join(differing[:5])}")
    indices = {name: index for index, name in enumerate(classes)}
    return [indices[name] for name in names]


def _read_labels(
    folder: Path, file_format: str, files: Sequence[str], num_classes: int
) -> list[tuple[str, list[tuple[int, int]]]]:
    """Reads the position and the label of every record, file by file."""

    def read(file: str) -> tuple[str, list[tuple[int, int]]]:
        try:
            records = open_records(folder / file, file_format).scan()
            rows = [(record.position, read_int(record.read, record.num_bytes, "label")) for record in records]
            if any(label >= num_classes for _, label in rows):
                raise ValueError("a label is out of range")
            return file, rows
        except (OSError, ValueError) as error:
            raise InputError(f"{folder / file} cannot be read: {error}; prepare the data set anew") from error

    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        return list(pool.map(read, files))
