"""Pack a data set for clusters and network drives: `vswin data prepare`.

Thousands of small files become a few large ArrayRecord files in the TFDS layout, which training reads by random access:
`dataset.root=<packed folder>`. Each file is compared with the videos before it gets its final name. After a kill, the
same command continues the unfinished work in `<output_dir>.partial`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vswin import __version__
from vswin.atomic import locked, remove_partial, replacing, sync_folder
from vswin.cluster import count_cores
from vswin.config.schema import DataPrepareConfig
from vswin.console import count_of, make_progress_bar
from vswin.data.catalog import load_catalog
from vswin.data.decode import VIDEO_FILES, VideoStore, list_files, open_content, read_whole
from vswin.data.frames import open_store
from vswin.data.packed import (
    DESCRIPTION_FILE,
    FORMAT,
    SPLITS,
    VIDEOS_FILE,
    PackedVideo,
    import_tfds,
    is_packed,
    read_rows,
    write_rows,
)
from vswin.data.pyav_encoder import ENCODING, shrink_video
from vswin.data.samples import Sample
from vswin.errors import DecodeError, InputError
from vswin.runtime import console, logger, start_log

_TFDS_NAME, _TFDS_VERSION = "packed_videos", "1.0.0"
_DESCRIPTION = (
    "Videos of an action recognition data set as encoded files, packed by vswin; videos.csv has a row for each."
)
_PLAN, _LOCK = "plan.sha256", "lock"


class Entry(NamedTuple):
    """A video to pack: its file, path relative to the data set's root, size, modification time, and its samples.

    A sample is its labels as text (see `PackedVideo`), a part of the video as text, and a group.
    """

    file: str
    name: str
    num_bytes: int
    modified_ns: int
    samples: list[tuple[str, str, str]]

    @property
    def label(self) -> int:
        """The label for other readers of the records: the first one of the first sample; -1 for none."""
        return int(self.samples[0][0].partition(";")[0] or -1)


class Shard(NamedTuple):
    """The part of a split in one record file, in the order of the list."""

    split: str
    number: int
    num_shards: int
    entries: Sequence[Entry]

    @property
    def file_name(self) -> str:
        """The file name in TFDS's scheme."""
        return f"{_TFDS_NAME}-{self.split}.array_record-{self.number:05d}-of-{self.num_shards:05d}"


def run_prepare(config: DataPrepareConfig) -> None:
    """Packs a data set, compares the result with its files and logs a summary.

    Raises:
        InputError: If the output exists, settings conflict, the disk is too small, or a file cannot be read or written.
    """
    start_log(None)
    output = _check(config)
    # TFDS data is already packed.
    catalog = load_catalog(replace(config.dataset, source="videos", folds=None))
    for note in catalog.notes:
        logger.info(note)
    if catalog.test:
        logger.info("left out: %s; pack them into a folder of their own", count_of(len(catalog.test), "test video"))
    shards = plan_shards(dict(zip(SPLITS, (catalog.train, catalog.val), strict=True)), config)
    entries = [entry for shard in shards for entry in shard.entries]
    num_bytes = sum(entry.num_bytes for entry in entries)
    work = output.with_name(f"{output.name}.partial")
    _check_space(num_bytes, work, config.short_side)
    work.mkdir(parents=True, exist_ok=True)

    def refuse() -> None:
        raise InputError(
            f"output_dir={output}: another vswin data prepare is at work there; wait until it ends, or name another"
        )

    with locked(work / _LOCK, refuse, is_optional=True):
        _check(config)  # another call may have finished in the meantime
        _start(work, shards, [*catalog.class_names], config.short_side)
        where = f"of {config.dataset.name} into {len(shards)} files in {output}"
        logger.info("packs %s (%s) %s", count_of(len(entries), "video"), _megabytes(num_bytes), where)
        _pack(config, shards, catalog.class_names, work)
        videos = [row for shard in shards for row in read_rows((work / f"{shard.file_name}.csv").read_bytes())]
        _describe(config, catalog.class_names, shards, videos, work)
        os.rename(work, output)
        sync_folder(output.parent)
        for name in (_PLAN, _LOCK, *(f"{shard.file_name}.csv" for shard in shards)):
            (output / name).unlink()
    sizes = {(video.split, video.path): video.num_bytes for video in videos}
    num_bytes = sum(sizes.values())
    text = f"{output} has {count_of(len(entries), 'video')}, {_megabytes(num_bytes)}"
    text += "; each was compared with its file"
    if config.short_side:
        kept = sum(entry.num_bytes == sizes[shard.split, entry.name] for shard in shards for entry in shard.entries)
        text += (
            f". {len(entries) - kept:,} were re-encoded to a shorter side of {config.short_side} pixels, {kept:,} were "
            "no larger, or could not be decoded, and are as they were"
        )
    task = " dataset.task=multi_label" if config.dataset.is_multi_label else ""
    logger.info("%s. Train with dataset=%s%s dataset.root=%s", text, config.dataset.name, task, output)


def _check(config: DataPrepareConfig) -> Path:
    """Checks early for errors that would otherwise occur late; returns the output folder."""
    if config.output_dir is None:
        raise InputError("output_dir=null: name the folder of the packed data set, e.g. output_dir=/fast/ucf101")
    output = Path(config.output_dir).expanduser()
    if output.exists():
        raise InputError(
            f"output_dir={output} is there already, and nothing is overwritten; name another, or remove it"
        )
    if config.short_side is not None and config.short_side % 2:
        raise InputError(f"short_side={config.short_side}: an even number of pixels")
    if is_packed(config.dataset.root):
        raise InputError(f"dataset.root={config.dataset.root} is packed already; name the folder of the video files")
    if importlib.util.find_spec("array_record") is None:
        raise InputError(
            "packing needs the package array_record, which is not on every system: pip install array_record"
        )
    if config.beam is not None:
        if config.dataset.isolate:
            raise InputError("dataset.isolate=true does not go with beam, whose workers decode: set one of them alone")
        _import_beam()
    return output


def _import_beam() -> Any:
    try:
        import apache_beam
        import apache_beam.options.pipeline_options
    except ImportError as error:
        raise InputError(
            f"beam: Apache Beam cannot be imported ({error}); `pip install apache-beam`, or leave beam=null, which "
            "packs with the cores of this machine"
        ) from error
    return apache_beam


def plan_shards(records: dict[str, list[Sample]], config: DataPrepareConfig) -> list[Shard]:
    """Looks up all files and divides them into shards; the plan is deterministic for unchanged videos.

    The first split that has videos gets `config.shards` files; others get as many files of about the same size.

    Raises:
        InputError: If a video is not a readable file, or there are fewer videos than shards.
    """
    entries = {split: _look_up(videos, config.dataset.root) for split, videos in records.items() if videos}
    if not entries:
        raise InputError("there are no videos to pack")
    sizes = {split: sum(entry.num_bytes for entry in found) for split, found in entries.items()}
    first = next(iter(entries))
    if config.shards > len(entries[first]):
        raise InputError(f"shards={config.shards}, but there are {len(entries[first])} videos to put into them")
    shards = []
    for split, found in entries.items():
        count = min(len(found), max(1, round(config.shards * sizes[split] / max(1, sizes[first]))))
        count = config.shards if split == first else count
        bounds = [round(len(found) * number / count) for number in range(count + 1)]
        parts = [found[start:end] for start, end in itertools.pairwise(bounds)]
        shards += [Shard(split, number, count, part) for number, part in enumerate(parts)]
    return shards


def _look_up(videos: Sequence[Sample], root: str) -> list[Entry]:
    entries: dict[str, Entry] = {}
    unusable = []
    for path, labels, part, group in videos:
        if path not in entries:
            try:
                files = list_files(path)
                if not files or not all(os.path.isfile(file) and os.access(file, os.R_OK) for file in files):
                    raise OSError
                found = [os.stat(file) for file in files]
            except (OSError, ValueError):
                unusable.append(path)
                continue
            num_bytes, newest = sum(status.st_size for status in found), max(status.st_mtime_ns for status in found)
            entries[path] = Entry(path, os.path.relpath(path, root), num_bytes, newest, [])
        entries[path].samples.append((";".join(map(str, labels)), str(part), group))
    if unusable:
        raise InputError(
            f"{len(unusable):,} of the {len(videos):,} videos are no files that can be read, e.g. {unusable[0]}; "
            "`vswin data check` lists them"
        )
    return [*entries.values()]


def _check_space(num_bytes: int, work: Path, short_side: int | None) -> None:
    output = next(folder for folder in work.parents if folder.is_dir())
    there = sum(file.stat().st_size for file in work.glob("*")) if work.is_dir() else 0
    needed, free = max(0, num_bytes - there), shutil.disk_usage(output).free
    at_most = "at most about" if short_side else "about"
    logger.info("%s %s will be written, %s are free in %s", at_most, _megabytes(needed), _megabytes(free), output)
    if needed > free:
        raise InputError(
            f"the packed data set takes {at_most} {_megabytes(needed)} more, and {_megabytes(free)} are free in "
            f"{output}; name another output_dir"
        )


def _start(work: Path, shards: Sequence[Shard], class_names: list[str], short_side: int | None) -> None:
    """Starts the folder of unfinished work, or continues in the existing one."""
    digest = hashlib.sha256(json.dumps([shards, class_names, short_side]).encode()).hexdigest()
    note = work / _PLAN
    if {file.name for file in work.iterdir()} <= {_LOCK}:
        with replacing(note) as unfinished:
            unfinished.write_text(digest)
    elif not note.is_file() or note.read_text() != digest:
        raise InputError(
            f"{work} holds unfinished work on another plan: other videos, or other settings; remove it, or name "
            "another output_dir"
        )
    else:
        logger.info("continues the unfinished work in %s", work)


def _pack(config: DataPrepareConfig, shards: Sequence[Shard], class_names: Sequence[str], work: Path) -> None:
    """Writes the missing files with the cores of this machine or with Beam workers."""
    pack = partial(pack_shard, folder=work, class_names=tuple(class_names), short_side=config.short_side)
    there = {path.name for path in work.iterdir()}
    missing = [shard for shard in shards if not {shard.file_name, f"{shard.file_name}.csv"} <= there]
    if len(missing) < len(shards):
        logger.info("%d of %d files are there already", len(shards) - len(missing), len(shards))
    try:
        if config.beam is not None:
            beam = _import_beam()
            options = beam.options.pipeline_options.PipelineOptions(config.beam)
            with beam.Pipeline(options=options) as pipeline:
                # Each element only lists file names; the workers read the videos.
                _ = pipeline | beam.Create(missing) | beam.Reshuffle() | beam.Map(pack)
        else:
            store = open_store(config.dataset) if config.short_side is not None else VIDEO_FILES
            _pack_here(missing, partial(pack, store=store))
    except (OSError, RuntimeError) as error:  # ArrayRecord raises RuntimeError
        raise InputError(f"packing ended: {error}. Finished files stay; the same command goes on from there") from error


def _pack_here(shards: Sequence[Shard], pack: Callable[..., None]) -> None:
    stop = threading.Event()
    with make_progress_bar(console, "videos") as bar, ThreadPoolExecutor(count_cores()) as pool:
        task = bar.add_task("pack", total=sum(len(shard.entries) for shard in shards), note="")

        def on_video() -> None:
            if stop.is_set():
                raise InterruptedError("another file could not be written, or the program was stopped")
            bar.advance(task)

        writing = {pool.submit(pack, shard, on_video=on_video): shard for shard in shards}
        try:
            for number, done in enumerate(as_completed(writing), start=1):
                done.result()
                logger.info("%d of %d files: %s is written", number, len(shards), writing[done].file_name)
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def pack_shard(
    shard: Shard,
    folder: Path,
    class_names: Sequence[str],
    short_side: int | None,
    store: VideoStore = VIDEO_FILES,
    on_video: Callable[[], None] = lambda: None,
) -> None:
    """Writes a record file, reads it back and compares every record; an incomplete file never gets its final name.

    Its rows of `videos.csv` are written first, to a file beside it. Videos larger than `short_side` pixels are decoded
    by `store` and re-encoded. `on_video` is called for each video, and may raise an error to stop the work.

    Raises:
        InputError: If the written records differ from the videos.
        OSError, RuntimeError: If a file cannot be read or written.
    """
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    tfds = import_tfds()
    features = _make_features(class_names)
    serializer = tfds.core.example_serializer.ExampleSerializer(features.get_serialized_info())
    adapter = tfds.core.file_adapters.ADAPTER_FOR_FORMAT[tfds.core.FileFormat.ARRAY_RECORD]

    def make_records() -> Iterator[tuple[str, bytes]]:
        for entry in shard.entries:
            on_video()
            example = {
                "video": _read(entry, short_side, store),
                "path": os.fsencode(entry.name),
                "label": entry.label,
            }
            yield entry.name, serializer.serialize_example(features.encode_example(example))

    path = folder / shard.file_name
    remove_partial(path)
    with replacing(path) as unfinished:
        adapter.write_examples(unfinished, make_records())
        rows = []
        try:
            records = ArrayRecordDataSource([str(unfinished)])
            if len(records) != len(shard.entries):
                raise ValueError(f"{len(records)} of {len(shard.entries)} videos came out")
            for position, entry in enumerate(shard.entries):
                found = features.deserialize_example_np(records[position])
                content = found["video"]
                _compare(entry, content, short_side, store)
                if (os.fsdecode(found["path"]), found["label"]) != (entry.name, entry.label):
                    raise ValueError(f"{entry.name} has another name or label")
                digest = hashlib.sha256(content).hexdigest()
                for label, *of_part in entry.samples:
                    record = shard.number, position, len(content), digest
                    rows.append(PackedVideo(shard.split, entry.name, label, *record, *of_part))
        except (RuntimeError, ValueError, DecodeError) as error:
            raise InputError(
                f"{path.name} is not what was to be packed: {error}. It is not kept; the same command makes it anew"
            ) from error
        with replacing(folder / f"{path.name}.csv") as unfinished_rows:
            write_rows(unfinished_rows, rows)


def _read(entry: Entry, short_side: int | None, store: VideoStore) -> bytes:
    """Reads a video, re-encoded if it is too large; one that cannot be decoded stays as it is."""
    content = None
    if short_side is not None:
        with suppress(DecodeError):
            content = shrink_video(entry.file, short_side, store)
    return content or read_whole(entry.file)


def _compare(entry: Entry, content: bytes, short_side: int | None, store: VideoStore) -> None:
    """Checks that a packed video equals the current file byte for byte, or, if re-encoded, has as many frames."""
    original = read_whole(entry.file)
    if content == original:
        return
    if short_side is None:
        raise ValueError(f"{entry.file} has {len(original):,} bytes, packed are {len(content):,}, and they differ")
    with store.open(entry.file) as reader, open_content(entry.name, content) as packed:
        if packed.num_video_frames != reader.num_video_frames:
            raise ValueError(f"{entry.file} has {reader.num_video_frames} frames, packed are {packed.num_video_frames}")


def _make_features(class_names: Sequence[str]) -> Any:
    """Describes a record to TFDS: the encoded file, its path and its class."""
    features = import_tfds().features
    video = features.Tensor(shape=(), dtype=np.object_)
    label = features.ClassLabel(names=list(class_names))
    return features.FeaturesDict({"video": video, "path": features.Text(), "label": label})


def _describe(
    config: DataPrepareConfig,
    class_names: Sequence[str],
    shards: Sequence[Shard],
    videos: Sequence[PackedVideo],
    work: Path,
) -> None:
    """Writes the metadata for TFDS and for vswin."""
    tfds = import_tfds()
    template = tfds.core.ShardedFileTemplate(data_dir=work, dataset_name=_TFDS_NAME, filetype_suffix="array_record")
    splits = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[len(shard.entries) for shard in group],
            num_bytes=sum(video.num_bytes for video in videos if video.split == split),
            filename_template=template.replace(split=split),
        )
        for split, group in itertools.groupby(shards, lambda shard: shard.split)
    ]
    tfds.folder_dataset.write_metadata(
        data_dir=work,
        features=_make_features(class_names),
        split_infos=splits,
        version=_TFDS_VERSION,
        description=_DESCRIPTION,
        check_data=False,
    )
    with replacing(work / VIDEOS_FILE) as unfinished:
        write_rows(unfinished, videos)
    description = {
        "format": FORMAT,
        "dataset": config.dataset.name,
        "split": config.dataset.split,
        "root": config.dataset.root,
        "class_names": list(class_names),
        "short_side": config.short_side,
        "encoding": ENCODING if config.short_side else {},
        "videos_sha256": hashlib.sha256((work / VIDEOS_FILE).read_bytes()).hexdigest(),
        "versions": {"vswin": __version__, **{name: version(name) for name in ("tensorflow-datasets", "av")}},
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    with replacing(work / DESCRIPTION_FILE) as unfinished:
        unfinished.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB"
