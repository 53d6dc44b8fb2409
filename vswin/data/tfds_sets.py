"""Load data sets that TFDS has prepared, or let TFDS download and prepare them. Called by `vswin.data.catalog`.

TFDS stores the frames of a video as JPEG images, which are only decoded when sampled, see `vswin.data.packed`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from vswin.atomic import replacing
from vswin.config.schema import DatasetConfig
from vswin.data.packed import RecordVideos, import_tfds, open_builder, open_records
from vswin.data.samples import Sample
from vswin.errors import InputError

logger = logging.getLogger("vswin")

# The archive, its unpacked files and the frames have about the same size.
_DISK_PER_DOWNLOAD = 3
_NUM_THREADS = 8
_VERSION = re.compile(r"\d{1,9}\.\d{1,9}\.\d{1,9}")
_LABELS_FILE = "vswin_labels.json"
_ADVICE = "prepare the data set anew"


def name_in_tfds(dataset: DatasetConfig) -> str:
    """Returns the TFDS name of a data set, e.g. "ucf101/ucf101_1".

    UCF101 has a configuration for each official split. TFDS's default, `ucf101_1_256`, squashes the frames to
    256 x 256 and is only used on request: dataset.tfds=ucf101/ucf101_1_256.

    Raises:
        InputError: If the data set has no TFDS name.
    """
    if dataset.tfds is None:
        raise InputError(
            f"dataset.source=tfds: no name in TFDS is known for dataset={dataset.name}; set dataset.tfds, or take "
            "dataset.source=videos"
        )
    return f"ucf101/ucf101_{dataset.split}" if dataset.tfds == "ucf101" else dataset.tfds


def find_prepared(dataset: DatasetConfig) -> Path | None:
    """Finds the newest version that TFDS has prepared, without importing TFDS; None if no version exists."""
    if dataset.tfds is None:
        return None
    versions = [
        (tuple(int(part) for part in folder.name.split(".")), folder)
        for folder in (_data_dir(dataset) / name_in_tfds(dataset)).glob("*.*.*")
        if _VERSION.fullmatch(folder.name) and (folder / "dataset_info.json").is_file()
    ]
    return max(versions)[1] if versions else None


def explain_tfds(dataset: DatasetConfig) -> str:
    """Describes how to get a data set from TFDS and what this requires, as part of a sentence."""
    name = name_in_tfds(dataset)
    return (
        f"let TFDS download and prepare {name}: dataset.download=true ({_describe_size(name)}; needs the program "
        f"ffmpeg, and hours), or set dataset.tfds_dir to where it is prepared (now {_data_dir(dataset)})"
    )


def load_tfds(
    dataset: DatasetConfig, class_names: Sequence[str] | None = None
) -> tuple[tuple[str, ...], list[Sample], list[Sample], RecordVideos]:
    """Loads a data set that TFDS has prepared; with `dataset.download`, TFDS prepares it first if necessary.

    `class_names` gives the order of the class indices; None uses TFDS's order.

    Returns:
        Class names, training records, validation records (the split `validation`, or else `test`), and the store that
        opens the videos. Videos are named by split and number, because TFDS does not keep their names.

    Raises:
        InputError: If the data set is missing, cannot be prepared, has no labelled videos, or has other classes.
    """
    folder = find_prepared(dataset)
    if folder is None and not dataset.download:
        raise InputError(f"TFDS has no {name_in_tfds(dataset)} in {_data_dir(dataset)}; {explain_tfds(dataset)}")
    folder = folder or _prepare(dataset)
    builder = open_builder(folder, _ADVICE)
    info, features = builder.info, import_tfds().features
    kinds = {"video": features.Sequence, "label": features.ClassLabel}
    if not all(name in info.features and isinstance(info.features[name], kind) for name, kind in kinds.items()):
        raise InputError(
            f"{folder} is no data set of labelled videos: it needs the features `video` (tfds.features.Video) and "
            f"`label` (ClassLabel), and has {', '.join(info.features)}"
        )
    names = tuple(info.features["label"].names)
    classes = tuple(class_names or names)
    if differing := sorted(set(names) ^ set(classes)):
        raise InputError(f"{folder} has other classes than the data set: they differ in {', '.join(differing[:5])}")

    splits = ["train", "validation" if "validation" in info.splits else "test"]
    files, labels = _read_labels(builder, [split for split in splits if split in info.splits])
    indices = {name: index for index, name in enumerate(classes)}
    positions: dict[str, tuple[str, int]] = {}
    records: dict[str, list[Sample]] = {split: [] for split in splits}
    for split, of_split in labels.items():
        for number, label in enumerate(of_split):
            path = f"{info.full_name}/{split}/{number:05d}"
            positions[path] = split, number
            records[split].append(Sample(path, (indices[names[label]],)))
    if folder.parent.name.endswith("_256"):
        logger.warning("%s has frames squashed to 256 x 256; the official recipe keeps their proportions", folder)
    logger.info("reads %s from %s: only the sampled ones of its JPEG frames are decoded", info.full_name, folder)
    identity = ("tfds", os.path.abspath(folder), hashlib.sha256(json.dumps(files).encode()).hexdigest())
    train, val = records.values()
    return classes, train, val, RecordVideos(builder, positions, identity, _ADVICE)


def _data_dir(dataset: DatasetConfig) -> Path:
    default = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    return Path(dataset.tfds_dir or default).expanduser()


def _describe_size(name: str) -> str:
    num_bytes = _download_bytes(name)
    if not num_bytes:
        return "TFDS does not say how much"
    return f"{num_bytes / 1e9:.1f} GB to download, about {_DISK_PER_DOWNLOAD * num_bytes / 1e9:.0f} GB of disk"


def _download_bytes(name: str) -> int:
    """Adds up the archive sizes that TFDS knows, in bytes; 0 if it knows none."""
    try:
        infos = import_tfds().builder_cls(name.split("/")[0]).url_infos
    except ValueError as error:  # TFDS does not know the name
        raise InputError(f"dataset.tfds={name}: {str(error).splitlines()[0]}") from error
    except ImportError:  # TFDS 4.9.10 does not install all packages that it imports
        return 0
    return sum(int(info.size) for info in (infos or {}).values())


def _prepare(dataset: DatasetConfig) -> Path:
    """Logs the required space, lets TFDS download and prepare a data set, and returns the folder."""
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
    tfds = import_tfds()
    try:
        # TFDS reads this format by random access. Its default format works too, see `vswin.data.packed`.
        builder = tfds.builder(name, data_dir=str(data_dir), file_format="array_record")
        builder.download_and_prepare()
    except (OSError, ImportError, tfds.download.DownloadError, subprocess.CalledProcessError) as error:
        raise InputError(
            f"TFDS could not prepare {name}: {error}. What is downloaded stays in {data_dir / 'downloads'}"
        ) from error
    return Path(builder.data_dir)


def _read_labels(builder: Any, splits: Sequence[str]) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Returns size and modification time of each file, and the label of each record of each split."""
    # Labels are stored with the frames: the first call reads all data and caches the labels in the folder.
    folder, info = Path(builder.data_dir), builder.info
    records = {split: open_records(builder, split, _ADVICE) for split in splits}
    status = {Path(file).name: os.stat(file) for split in splits for file in info.splits[split].filepaths}
    files = {name: [found.st_size, found.st_mtime_ns] for name, found in status.items()}
    valid = range(info.features["label"].num_classes)
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        kept = json.loads((folder / _LABELS_FILE).read_text(encoding="utf-8"))
        labels = {split: kept["labels"][split] for split in splits}
        is_whole = all(len(labels[split]) == len(found) for split, found in records.items())
        if kept["files"] == files and is_whole and all(label in valid for split in splits for label in labels[split]):
            return files, labels
    logger.info("reads the labels of %s, once: %.1f GB", info.full_name, sum(size for size, _ in files.values()) / 1e9)
    labels = {}
    try:
        with ThreadPoolExecutor(_NUM_THREADS) as pool:
            for split, found in records.items():
                examples = pool.map(found.__getitem__, range(len(found)))
                labels[split] = [int(example["label"]) for example in examples]
        if not all(label in valid for of_split in labels.values() for label in of_split):
            raise ValueError("a label is out of range or missing")
    except Exception as error:  # ArrayRecord, protocol buffers and TFDS each raise their own errors
        raise InputError(f"{folder} cannot be read: {error}; {_ADVICE}") from error
    with suppress(OSError), replacing(folder / _LABELS_FILE) as partial:  # the folder may be read-only
        partial.write_text(json.dumps({"files": files, "labels": labels}), encoding="utf-8")
    return files, labels
