"""What a packed data set holds: a description and a row per video, beside the files that TFDS reads.

- `vswin.json`: class names, where the videos came from, and how they were packed;
- `videos.csv`: split, name, label, place, length and SHA-256 of each video, in the order of the lists;
- `packed_videos-train.array_record-00000-of-00016` and so on, `features.json`, `dataset_info.json`,
  `label.labels.txt`: a TFDS data set, for `tfds.builder_from_directory`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import NamedTuple

from vswin.atomic import replacing
from vswin.errors import InputError

TFDS_NAME = "packed_videos"
TFDS_VERSION = "1.0.0"
SPLITS = ("train", "val")

_DESCRIPTION = "vswin.json"
_VIDEOS = "videos.csv"
# To be raised when what stands in these files changes.
_FORMAT = 1
# As many as their names have digits for.
_MAX_SHARDS = 99_999


@dataclass(frozen=True)
class Description:
    """Says what was packed, from where and how.

    Attributes:
        dataset: `dataset.name` of the source.
        split: `dataset.split` of the source.
        root: Folder the names of the videos start from, as it was called when they were packed.
        class_names: Name of each class index.
        file_format: "array_record" or "tfrecord".
        num_shards: Files of each split.
        short_side: Pixels that larger videos were re-encoded to; None where all are as they were.
        encoding: Codec and settings of the re-encoded videos; empty where there are none.
        list_sha256: Hash of the sorted lines `path label` of both splits.
        videos_sha256: Hash of `videos.csv`.
        versions: Of what took part: vswin, tensorflow-datasets, PyAV.
        date: When it was packed, ISO 8601.
    """

    dataset: str
    split: int
    root: str
    class_names: list[str]
    file_format: str
    num_shards: dict[str, int]
    short_side: int | None
    encoding: dict[str, str | int]
    list_sha256: str
    videos_sha256: str
    versions: dict[str, str]
    date: str


class PackedVideo(NamedTuple):
    """A row of `videos.csv`.

    Attributes:
        split: "train" or "val".
        path: Name of the video: its path from the root of the data set.
        label: Class index.
        shard: Number of its file within the split.
        position: Its place in that file, see `RecordFile`.
        num_bytes: Length of the encoded video.
        sha256: Hash of it.
    """

    split: str
    path: str
    label: int
    shard: int
    position: int
    num_bytes: int
    sha256: str


def is_packed(root: str | Path) -> bool:
    """Tells a packed data set from a folder of videos."""
    return (Path(root) / _DESCRIPTION).is_file()


def shard_name(split: str, shard: int, num_shards: int, file_format: str) -> str:
    """Names a file of records as TFDS does."""
    return f"{TFDS_NAME}-{split}.{file_format}-{shard:05d}-of-{num_shards:05d}"


def hash_list(entries: Sequence[tuple[str, int]]) -> str:
    """Hashes names and labels: the same list has the same hash in whatever order it is."""
    lines = sorted(f"{path} {label}\n" for path, label in entries)
    return hashlib.sha256(os.fsencode("".join(lines))).hexdigest()


def write_videos(folder: Path, videos: Sequence[PackedVideo]) -> str:
    """Writes `videos.csv`; gives its SHA-256."""
    path = folder / _VIDEOS
    with (
        replacing(path) as partial,
        partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(PackedVideo._fields)
        writer.writerows(videos)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_description(folder: Path, description: Description) -> None:
    """Writes `vswin.json`."""
    with replacing(folder / _DESCRIPTION) as partial:
        text = json.dumps({"format": _FORMAT, **asdict(description)}, indent=2)
        partial.write_text(text + "\n", encoding="utf-8")


def read_description(root: Path) -> Description:
    """Reads `vswin.json`.

    Raises:
        InputError: If it is damaged or made by a newer program.
    """
    path = root / _DESCRIPTION
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        found = values.pop("format")
        if found == _FORMAT:
            return _checked(Description(**{field.name: values[field.name] for field in fields(Description)}))
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error!r}); pack the data anew with `vswin data prepare`") from None
    raise InputError(
        f"{path} has format {found}, this vswin reads format {_FORMAT}; pack the data anew, or update vswin"
    )


def _checked(description: Description) -> Description:
    """Checks the values that others rely on."""
    names, num_shards = description.class_names, description.num_shards
    is_sound = (
        all(isinstance(text, str) for text in (*names, *num_shards, description.dataset, description.file_format))
        and all(isinstance(number, int) and 0 <= number <= _MAX_SHARDS for number in num_shards.values())
        and set(num_shards) <= set(SPLITS)
        and isinstance(names, list)
    )
    if not is_sound:
        raise ValueError("its class_names, num_shards, dataset or file_format are damaged")
    return description


def read_videos(root: Path, sha256: str) -> list[PackedVideo]:
    """Reads `videos.csv`.

    Args:
        root: The packed data set.
        sha256: What its hash should be.

    Raises:
        InputError: If it is damaged.
    """
    path = root / _VIDEOS
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); the packed data set is not whole") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise InputError(f"{path} is not the one that was packed with these videos; copy the packed data set anew")
    file = io.StringIO(content.decode("utf-8", errors="surrogateescape"), newline="")
    try:
        return [
            PackedVideo(split, name, int(label), int(shard), int(position), int(num_bytes), digest)
            for split, name, label, shard, position, num_bytes, digest in itertools.islice(csv.reader(file), 1, None)
        ]
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path} is damaged ({error}); copy the packed data set anew") from None
