"""Open the videos of a packed data set, see `vswin.data.packed.contents`; called by `vswin.data.catalog`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from vswin.data.decode import VideoReader
from vswin.data.decode_error import DecodeError
from vswin.data.packed.contents import SPLITS, Description, PackedVideo, read_description, read_videos, shard_name
from vswin.data.packed.examples import read_bytes
from vswin.data.packed.record_files import RecordFile, open_records
from vswin.data.records import VideoRecord
from vswin.errors import InputError
from vswin.schema import DatasetConfig

# Each may hold a descriptor, of which a process has 1,024 by default.
_MAX_OPEN_FILES = 256
# In bytes; files can have no more.
_MAX_POSITION = 2**63


class PackedVideos:
    """Has the videos as encoded files inside record files, and decodes them from memory; see `VideoStore`."""

    def __init__(self, root: Path, description: Description, videos: dict[str, PackedVideo]) -> None:
        """Opens a packed data set.

        Args:
            root: Its folder.
            description: What it is.
            videos: Its rows by the names of the videos; one that is in both splits is one file.
        """
        self._root = root
        self._description = description
        self._videos = videos
        self._open_file = lru_cache(maxsize=_MAX_OPEN_FILES)(self._open_shard)

    def open(self, path: str, decoder: str = "auto", timeout_sec: float | None = None) -> VideoReader:
        """Opens a video, see `VideoStore.open`."""
        return VideoReader(path, decoder, timeout_sec, self.read(path))

    def read(self, path: str) -> bytes:
        """Reads the encoded file.

        Raises:
            DecodeError: If there is none of this name, or its record cannot be read.
        """
        video = self._videos.get(path)
        if video is None:
            raise DecodeError(path, "missing", f"not in {self._root}")
        try:
            record = self._open_file(video.split, video.shard).read(video.position)
            return read_bytes(lambda start, count: record[start : start + count], len(record), "video")
        except OSError as error:
            raise DecodeError(path, "not readable", f"{error.filename or self._root}: {error.strerror}") from None
        except ValueError as error:
            raise DecodeError(path, "damaged record", str(error)) from None

    def __reduce__(self) -> tuple[type[PackedVideos], tuple[object, ...]]:
        """Lets another process open the files anew."""
        return PackedVideos, (self._root, self._description, self._videos)

    def identify(self, path: str) -> tuple[object, ...] | None:
        """Gives the hash of the packed data set and the name of a video; None if it has none of this name."""
        video = self._videos.get(path)
        return None if video is None else ("packed", self._description.videos_sha256, video.path)

    def _open_shard(self, split: str, shard: int) -> RecordFile:
        file_format = self._description.file_format
        name = shard_name(split, shard, self._description.num_shards[split], file_format)
        return open_records(self._root / name, file_format)


def load_packed(
    dataset: DatasetConfig,
) -> tuple[tuple[str, ...], list[VideoRecord], list[VideoRecord], PackedVideos]:
    """Loads what `vswin data prepare` has packed.

    Args:
        dataset: Its `root` is the packed data set.

    Returns:
        Class names, records of training and of validation, in the order of the lists they were packed from, and
        the store that opens them.

    Raises:
        InputError: If something is missing or damaged, or other lists or another split than the packed ones are
            asked for.
    """
    root = Path(dataset.root)
    description = read_description(root)
    if dataset.train_list or dataset.val_list or dataset.test_list:
        raise InputError(
            f"{root} is a packed data set and has its own lists; leave dataset.train_list and dataset.val_list null, "
            "and test_list, too, or pack the data anew with them"
        )
    if description.dataset == dataset.name and description.split != dataset.split:
        raise InputError(
            f"{root} was packed from split {description.split} of {description.dataset}, not dataset.split="
            f"{dataset.split}; pack each split into a folder of its own"
        )
    videos = read_videos(root, description.videos_sha256)
    _check_places(root, description, videos)
    _check_shards(root, description)
    # Named below the root, as the files were below the root of their data set.
    names = [os.path.join(dataset.root, video.path) for video in videos]
    train, val = (
        [VideoRecord(name, video.label) for name, video in zip(names, videos, strict=True) if video.split == split]
        for split in SPLITS
    )
    store = PackedVideos(root, description, dict(zip(names, videos, strict=True)))
    return tuple(description.class_names), train, val, store


def _check_shards(root: Path, description: Description) -> None:
    there = set(os.listdir(root))
    names = [
        shard_name(split, shard, num_shards, description.file_format)
        for split, num_shards in description.num_shards.items()
        for shard in range(num_shards)
    ]
    if absent := [name for name in names if name not in there]:
        raise InputError(
            f"{len(absent)} of the {len(names)} files of the packed data set {root} are not there, e.g. {absent[0]}; "
            "copy it anew"
        )


def _check_places(root: Path, description: Description, videos: Sequence[PackedVideo]) -> None:
    """Checks that every row names a class and a record that can be there."""
    num_classes, num_shards = len(description.class_names), description.num_shards
    for video in videos:
        is_sound = 0 <= video.label < num_classes and 0 <= video.shard < num_shards.get(video.split, 0)
        if not (is_sound and 0 <= video.position < _MAX_POSITION):
            raise InputError(
                f"{root} is damaged: {video.path[:200]!r} has a label or a place that is not there; copy it anew"
            )
