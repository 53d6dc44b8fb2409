"""Compare a packed data set with the files it was made from, record by record, and list what is where."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tensorflow as tf

from vswin.data.decode import VideoReader
from vswin.data.decode_error import DecodeError
from vswin.data.packed.contents import TFDS_NAME, PackedVideo
from vswin.data.packed.examples import read_bytes, read_int
from vswin.data.packed.plan import Entry, Plan
from vswin.data.packed.record_files import open_records
from vswin.data.stores import VIDEO_FILES, VideoStore
from vswin.errors import InputError

_SHARD = re.compile(rf"{TFDS_NAME}-(?P<split>\w+)\.(?P<format>\w+)-(?P<shard>\d+)-of-(?P<num_shards>\d+)")


def verify_packed(
    plan: Plan,
    folder: Path,
    short_side: int | None,
    num_threads: int,
    on_video: Callable[[int], None],
    store: VideoStore = VIDEO_FILES,
) -> list[PackedVideo]:
    """Reads every record back, with its checksum, and compares it with its file.

    A video must be the file as it is now, byte for byte, or if re-encoded have as many frames.

    Args:
        plan: What should be there.
        folder: Holds the files of records.
        short_side: Pixels that larger videos were re-encoded to; None where none were.
        num_threads: Files to be read side by side.
        on_video: Told how many more videos are done.
        store: Counts the frames of the videos that were re-encoded.

    Returns:
        A row for every video, in the order of the lists.

    Raises:
        InputError: If something is damaged, missing or differs. The file of records concerned is removed, so that
            the next attempt makes it anew.
    """

    def verify(path: Path) -> list[tuple[int, PackedVideo]]:
        try:
            rows = list(_verify_file(path, plan, short_side, store, on_video))
        except (OSError, ValueError, tf.errors.OpError, DecodeError) as error:
            path.unlink(missing_ok=True)
            raise InputError(
                f"{path.name} is not what was to be packed: {error}. It is removed; the same command makes it anew"
            ) from error
        return rows

    paths = sorted(path for path in folder.iterdir() if _SHARD.fullmatch(path.name))
    with ThreadPoolExecutor(num_threads) as pool:
        rows = {(row.split, number): row for found in pool.map(verify, paths) for number, row in found}
    expected = [(split, entry.number) for split, entries in plan.entries.items() for entry in entries]
    if set(rows) != set(expected):
        raise InputError(
            f"{len(set(expected) - set(rows)):,} videos are missing from {folder}; remove it and pack anew"
        )
    return [rows[key] for key in expected]


def _verify_file(
    path: Path, plan: Plan, short_side: int | None, store: VideoStore, on_video: Callable[[int], None]
) -> Iterator[tuple[int, PackedVideo]]:
    name = _SHARD.fullmatch(path.name)
    assert name is not None
    split, file_format = name["split"], name["format"]
    if file_format == "tfrecord":
        for _ in tf.data.TFRecordDataset(str(path)):  # compares the checksums
            pass
    for record in open_records(path, file_format).scan():
        entry = plan.entries[split][read_int(record.read, record.num_bytes, "number")]
        content = read_bytes(record.read, record.num_bytes, "video")
        _compare(entry, content, short_side, store)
        label = read_int(record.read, record.num_bytes, "label")
        if label != entry.label:
            raise ValueError(f"{entry.name} has the label {label}, not {entry.label}")
        digest = hashlib.sha256(content).hexdigest()
        row = PackedVideo(split, entry.name, label, int(name["shard"]), record.position, len(content), digest)
        yield entry.number, row
        on_video(1)


def _compare(entry: Entry, content: bytes, short_side: int | None, store: VideoStore) -> None:
    original = Path(entry.file).read_bytes()
    if content == original:
        return
    if short_side is None:
        raise ValueError(f"{entry.file} has {len(original):,} bytes, packed are {len(content):,}, and they differ")
    with store.open(entry.file) as reader, VideoReader(entry.name, content=content) as packed:
        if packed.num_video_frames != reader.num_video_frames:
            raise ValueError(f"{entry.file} has {reader.num_video_frames} frames, packed are {packed.num_video_frames}")
