"""Read videos from a few large files in the TFDS layout, packed by `vswin data prepare` or prepared by TFDS.

A packed data set adds two files: `vswin.json` describes what was packed, from where and how, and `videos.csv` has a row
for each video, in the order of the lists. A record holds a video as an encoded file (packed) or as a sequence of
encoded frames (TFDS). Records are read by random access, and only requested frames are decoded.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vswin.config.schema import DatasetConfig
from vswin.data.decode import FrameReader, PictureReader, open_content
from vswin.data.samples import WHOLE, Part, Sample, split_name
from vswin.errors import DecodeError, InputError

SPLITS = ("train", "val")
DESCRIPTION_FILE, VIDEOS_FILE = "vswin.json", "videos.csv"
# Raise this number when the content of these files changes; formats 1 and 2, without parts and groups, are read, too.
FORMAT = 3
_ADVICE = "copy the packed data set anew"
# Keys of `features.json` whose values are names of Python classes.
_NAMES_OF_MODULES = {"type", "pythonClassName", "python_class_name", "proto_cls", "protoCls"}
_LENGTH_BYTES, _CRC_BYTES = 8, 4


class PackedVideo(NamedTuple):
    """A row of `videos.csv`: a sample. Its label is a class index, or several, separated by semicolons.

    `path` starts from the root, `shard` is the file number, `position` the index in it, which the samples of a video
    share. `part` is a `vswin.data.samples.Part` as text.
    """

    split: str
    path: str
    label: str
    shard: int
    position: int
    num_bytes: int
    sha256: str
    part: str = ""
    group: str = ""

    @property
    def labels(self) -> tuple[int, ...]:
        """The class indices."""
        return tuple(map(int, filter(None, self.label.split(";"))))


def is_packed(root: str | Path) -> bool:
    """Tells whether a folder is a packed data set."""
    return (Path(root) / DESCRIPTION_FILE).is_file()


def load_packed(
    dataset: DatasetConfig,
) -> tuple[tuple[str, ...], list[Sample], list[Sample], RecordVideos]:
    """Loads a packed data set: class names, training records, validation records, and the store of the videos.

    Raises:
        InputError: If something is missing or damaged, or the configuration asks for lists or for another split.
    """
    root = Path(dataset.root)
    description, videos = _read_index(root)
    if dataset.train_list or dataset.val_list or dataset.test_list:
        raise InputError(
            f"{root} is a packed data set and has its own lists; leave dataset.train_list and dataset.val_list null, "
            "and test_list, too, or pack the data anew with them"
        )
    if not dataset.folds and description["dataset"] == dataset.name and description["split"] != dataset.split:
        raise InputError(
            f"{root} was packed from split {description['split']} of {dataset.name}, not dataset.split="
            f"{dataset.split}; pack each split into a folder of its own"
        )
    if not dataset.is_multi_label and any(len(video.labels) != 1 for video in videos):
        raise InputError(f"{root} was packed with several labels for a video; set dataset.task=multi_label")
    # Videos have the same names below this root as below the root of their data set.
    train: list[Sample] = []
    val: list[Sample] = []
    for video in videos:
        path, part = split_name(os.path.join(dataset.root, video.path) + video.part)
        (train if video.split == SPLITS[0] else val).append(Sample(path, video.labels, part, video.group))
    return tuple(description["class_names"]), train, val, _open_store(dataset.root, description, videos)


def open_packed(root: str) -> RecordVideos:
    """Opens a packed data set, whose videos have names below its root; errors as in `load_packed`."""
    return _open_store(root, *_read_index(Path(root)))


def _read_index(root: Path) -> tuple[dict[str, Any], list[PackedVideo]]:
    """Reads `vswin.json` and `videos.csv`."""
    path = root / DESCRIPTION_FILE
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        names = description["class_names"]
        texts = (*names, description["dataset"], description["videos_sha256"])
        if not (isinstance(names, list) and all(isinstance(text, str) for text in texts)):
            raise ValueError("its class_names, dataset or videos_sha256 are damaged")
        found, _ = description["format"], description["split"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error!r}); pack the data anew with `vswin data prepare`") from None
    if found not in (1, 2, FORMAT):
        raise InputError(
            f"{path} has format {found}, this vswin reads format {FORMAT}; pack the data anew, or update vswin"
        )
    path = root / VIDEOS_FILE
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); the packed data set is not whole") from None
    if hashlib.sha256(content).hexdigest() != description["videos_sha256"]:
        raise InputError(f"{path} is not the one that was packed with these videos; {_ADVICE}")
    try:
        videos = read_rows(content)
        unknown = [video for video in videos if not all(0 <= label < len(names) for label in video.labels)]
    except (ValueError, TypeError, csv.Error) as error:
        raise InputError(f"{path} is damaged ({error}); {_ADVICE}") from None
    if unknown:
        raise InputError(f"{root} is damaged: {unknown[0].path[:200]!r} has a label that is not there; {_ADVICE}")
    return description, videos


def write_rows(path: Path, videos: Sequence[PackedVideo]) -> None:
    """Writes `videos.csv`, or the rows of one record file."""
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(PackedVideo._fields)
        writer.writerows(videos)


def read_rows(content: bytes) -> list[PackedVideo]:
    """Reads the rows that `write_rows` wrote; a ValueError, TypeError or csv.Error if they are damaged."""
    file = io.StringIO(content.decode("utf-8", errors="surrogateescape"), newline="")
    return [
        PackedVideo(split, name, label, int(shard), int(position), int(num_bytes), *rest)
        for split, name, label, shard, position, num_bytes, *rest in itertools.islice(csv.reader(file), 1, None)
    ]


def _open_store(root: str, description: Mapping[str, Any], videos: Sequence[PackedVideo]) -> RecordVideos:
    builder = open_builder(Path(root), _ADVICE)
    positions: dict[str, tuple[str, int]] = {}
    for split in {video.split for video in videos}:
        # TFDS numbers the records of a split across all its files.
        records = sorted({(video.shard, video.position, video.path) for video in videos if video.split == split})
        num_records = builder.info.splits[split].num_examples if split in builder.info.splits else 0
        if len(records) != num_records:
            raise InputError(
                f"{root} is damaged: {VIDEOS_FILE} has {len(records):,} videos of the split {split[:20]!r}, and there "
                f"are {num_records:,} records; {_ADVICE}"
            )
        positions |= {os.path.join(root, path): (split, number) for number, (_, _, path) in enumerate(records)}
    return RecordVideos(builder, positions, ("packed", description["videos_sha256"]), _ADVICE)


class RecordVideos:
    """Opens videos that are records of a data set in the TFDS layout; see `VideoStore`."""

    def __init__(
        self, builder: Any, positions: Mapping[str, tuple[str, int]], identity: tuple[object, ...], advice: str
    ) -> None:
        """Opens the records; `positions` maps a video's name to split and record number.

        `identity` identifies the data set uniquely, in JSON values; `advice` and errors as in `open_records`.
        """
        self._folder = builder.data_dir
        self._positions = positions
        self._identity = identity
        splits = {split for split, _ in positions.values()}
        self._records = {split: open_records(builder, split, advice) for split in splits}

    def open(
        self, path: str, decoder: str = "auto", timeout_sec: float | None = None, part: Part = WHOLE
    ) -> FrameReader:
        """Opens a part of a video, see `VideoStore.open`; videos stored as images ignore `decoder`."""
        video = self.read(path)
        if isinstance(video, bytes):
            return open_content(path, video, decoder, timeout_sec, part)
        return PictureReader(path, len(video), video.__getitem__, timeout_sec, part)

    def read(self, path: str) -> bytes | Sequence[bytes]:
        """Reads a video as stored: an encoded file, or encoded frames.

        Raises:
            DecodeError: If there is no video of this name, or its record cannot be read.
        """
        if path not in self._positions:
            raise DecodeError(path, "missing", f"not in {self._folder}")
        split, number = self._positions[path]
        try:
            video: bytes | Sequence[bytes] = self._records[split][number]["video"]
            if not isinstance(video, bytes) and not all(isinstance(frame, bytes) for frame in video):
                raise ValueError("neither an encoded file nor encoded frames")
            return video
        except OSError as error:
            raise DecodeError(path, "not readable", f"{error.filename or self._folder}: {error.strerror}") from None
        except Exception as error:  # ArrayRecord, protocol buffers and TFDS each raise their own errors
            raise DecodeError(path, "damaged record", str(error)) from None

    def identify(self, path: str) -> tuple[object, ...] | None:
        """Returns the data set's identity and the video's split and record number; None if the name is unknown."""
        return (*self._identity, *self._positions[path]) if path in self._positions else None


def import_tfds() -> Any:
    """Imports TFDS only when needed, because the import is slow; it does not import TensorFlow."""
    import tensorflow_datasets

    return tensorflow_datasets


def open_builder(folder: Path, advice: str) -> Any:
    """Reads the TFDS metadata of a folder, which may come from an untrusted source.

    Raises:
        InputError: If the metadata cannot be read, or would import modules of other packages.
    """
    try:
        check_imports(json.loads((folder / "features.json").read_text(encoding="utf-8")))
        builder = import_tfds().builder_from_directory(folder)
        builder.info.splits  # noqa: B018 (read only now)
        return builder
    except InputError:
        raise
    except Exception as error:  # TFDS passes on every error of protocol buffers, TensorFlow and its own checks
        reason = f"{type(error).__name__}: {str(error)[:300]}"
        raise InputError(f"{folder} cannot be read ({reason}); {advice}") from error


def check_imports(described: Any) -> None:
    """Refuses features of other packages, because TFDS imports every module that `features.json` names."""
    if isinstance(described, list):
        described = dict(enumerate(described))
    if not isinstance(described, dict):
        return
    for key, value in described.items():
        # Older versions of TFDS wrote JSON into JSON.
        check_imports(json.loads(value) if key == "content" and isinstance(value, str) else value)
        if key in _NAMES_OF_MODULES and "." in str(value) and not str(value).startswith("tensorflow_datasets."):
            raise InputError(f"features.json wants the Python module of {str(value)[:200]!r}, which is not imported")


def open_records(builder: Any, split: str, advice: str) -> Sequence[Mapping[str, Any]]:
    """Opens the records of a split; their videos stay encoded.

    Raises:
        InputError: If a file is missing, damaged, or of an unsupported format; `advice` is the advice in the message.
    """
    files = [os.fspath(file) for file in builder.info.splits[split].filepaths]
    if absent := [file for file in files if not os.path.exists(file)]:
        raise InputError(f"{len(absent)} of the {len(files)} files are not there, e.g. {absent[0]}; {advice}")
    skip = import_tfds().decode.SkipDecoding()
    # Data sources call this method for a sequence, and SkipDecoding of TFDS 4.9.10 lacks it.
    skip.decode_batch_example_np = skip.decode_example_np
    decoders = {"video": skip}
    try:
        if builder.info.file_format.value == "tfrecord":
            return _TFRecords(files, builder.info.features, decoders)
        source: Sequence[Mapping[str, Any]] = builder.as_data_source(split, decoders=decoders)
        return source
    except NotImplementedError:
        raise InputError(f"{builder.data_dir} is neither ArrayRecord nor TFRecord; {advice}") from None
    except ImportError as error:
        raise InputError(f"{builder.data_dir} needs the package array_record ({error}): pip install it") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{builder.data_dir} cannot be read: {error}; {advice}") from error


class _TFRecords(Sequence[Mapping[str, Any]]):
    """Reads TFRecord files, TFDS's default format, by random access; TFDS only reads them sequentially."""

    def __init__(self, files: Sequence[str], features: Any, decoders: Mapping[str, Any]) -> None:
        """Finds the position of each record; raises OSError, or ValueError for a damaged file."""
        # A record is its length (uint64, little endian), a checksum of the length, its bytes, and their checksum.
        self._features, self._decoders = features, decoders
        self._positions: list[tuple[str, int, int]] = []  # file, first byte, number of bytes
        for name in files:
            end, position = os.path.getsize(name), 0
            with open(name, "rb", buffering=0) as file:
                while position < end:
                    file.seek(position)
                    num_bytes = int.from_bytes(file.read(_LENGTH_BYTES), "little")
                    self._positions.append((name, position + _LENGTH_BYTES + _CRC_BYTES, num_bytes))
                    position += _LENGTH_BYTES + _CRC_BYTES + num_bytes + _CRC_BYTES
            if position > end:
                raise ValueError(f"{name} ends in the last of its records")

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, number: Any) -> Any:
        """Reads a record without checking checksums; raises the errors of `__init__` and of TFDS."""
        name, start, num_bytes = self._positions[number]
        with open(name, "rb") as file:
            file.seek(start)
            record = file.read(num_bytes)
        if len(record) < num_bytes:
            raise ValueError(f"{name} ends in the record at byte {start:,}")
        return self._features.deserialize_example_np(record, decoders=self._decoders)
