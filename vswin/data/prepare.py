"""Pack a data set for clusters and network drives: `vswin data prepare`.

Thousands of small files become a few large ones, which training reads at any place and decodes from memory:
`dataset.root=<packed folder>`. Work goes on in `<output_dir>.partial` and is continued there after a kill; the
folder gets its name when everything has been compared with the files.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from vswin import __version__
from vswin.atomic import locked, replacing, sync_folder
from vswin.cores import count_cores
from vswin.data.catalog import Catalog, load_catalog
from vswin.data.frames import open_store
from vswin.data.packed.contents import (
    SPLITS,
    Description,
    PackedVideo,
    hash_list,
    is_packed,
    write_description,
    write_videos,
)
from vswin.data.packed.plan import Plan, make_plan
from vswin.data.packed.record_files import check_file_format
from vswin.data.pyav_encoder import ENCODING
from vswin.data.stores import VIDEO_FILES
from vswin.errors import InputError
from vswin.runtime import console, logger, start_log
from vswin.schema import DataPrepareConfig
from vswin.tables import make_progress_bar
from vswin.wording import count_of

_PLAN = "plan.sha256"
_LOCK = "lock"
_BEAM_FOLDER = "beam"


def run_prepare(config: DataPrepareConfig) -> None:
    """Packs a data set, compares the result with its files and says what was done.

    Raises:
        InputError: If the output is there already, something does not fit, or a file cannot be read or written.
    """
    start_log(None)
    output = _check(config)
    # What TFDS has prepared is packed already.
    catalog = load_catalog(replace(config.dataset, source="videos"))
    for note in catalog.notes:
        logger.info(note)
    records = dict(zip(SPLITS, (catalog.train, catalog.val), strict=True))
    if catalog.test:
        logger.info("left out: %s; pack them into a folder of their own", count_of(len(catalog.test), "test video"))
    plan = make_plan(records, config.dataset.root, config.shards)
    work = output.with_name(f"{output.name}.partial")
    _check_space(plan, work, config.short_side)
    work.mkdir(parents=True, exist_ok=True)
    with locked(work / _LOCK, lambda: _refuse(output), is_optional=True):
        _check(config)  # what another call has finished meanwhile
        _write(config, catalog, plan, work, output)


def _refuse(output: Path) -> None:
    raise InputError(
        f"output_dir={output}: another vswin data prepare is at work there; wait until it has ended, or name another"
    )


def _write(config: DataPrepareConfig, catalog: Catalog, plan: Plan, work: Path, output: Path) -> None:
    _start(work, plan.digest([list(catalog.class_names), config.file_format, config.short_side, config.beam]))
    logger.info(
        "packs %s videos (%s) of %s into %d files, format %s, in %s",
        f"{plan.num_videos:,}",
        _megabytes(plan.num_bytes),
        config.dataset.name,
        len(plan.shards),
        config.file_format,
        output,
    )
    videos = _pack(config, catalog, plan, work)
    _describe(config, catalog, videos, work)
    (work / _PLAN).unlink()
    (work / _LOCK).unlink()
    os.rename(work, output)
    sync_folder(output.parent)
    logger.info("%s", _report(plan, videos, output, config))


def _check(config: DataPrepareConfig) -> Path:
    """Checks what would be noticed late otherwise; gives the folder to write."""
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
    check_file_format(config.file_format)
    if config.beam is not None:
        if config.dataset.isolate:
            raise InputError("dataset.isolate=true does not go with beam, whose workers decode: set one of them alone")
        from vswin.data.packed.tfds_builder import import_beam

        import_beam()
    return output


def _check_space(plan: Plan, work: Path, short_side: int | None) -> None:
    output = next(folder for folder in work.parents if folder.is_dir())
    there = sum(file.stat().st_size for file in work.glob("*")) if work.is_dir() else 0
    needed, free = max(0, plan.num_bytes - there), shutil.disk_usage(output).free
    at_most = "at most about" if short_side else "about"
    logger.info("%s %s will be written, %s are free in %s", at_most, _megabytes(needed), _megabytes(free), output)
    if needed > free:
        raise InputError(
            f"the packed data set takes {at_most} {_megabytes(needed)} more, and {_megabytes(free)} are free in "
            f"{output}; name another output_dir"
        )


def _start(work: Path, digest: str) -> None:
    """Makes the folder of unfinished work, or goes on in the one that is there."""
    note = work / _PLAN
    if {file.name for file in work.iterdir()} <= {_LOCK}:
        with replacing(note) as partial:
            partial.write_text(digest)
    elif not note.is_file() or note.read_text() != digest:
        raise InputError(
            f"{work} holds unfinished work on another plan: other videos, or other settings; remove it, or name "
            "another output_dir"
        )
    else:
        logger.info("goes on with the unfinished work in %s", work)


def _pack(config: DataPrepareConfig, catalog: Catalog, plan: Plan, work: Path) -> list[PackedVideo]:
    # TensorFlow prints and takes seconds; what is wrong so far is said without it.
    from vswin.data.packed.tfds_builder import PackedVideos, pack_by_beam, write_tfds_metadata
    from vswin.data.packed.verify import verify_packed
    from vswin.data.packed.write import write_shards

    num_threads = count_cores()
    store = open_store(config.dataset) if config.short_side is not None else VIDEO_FILES
    if config.beam is None:
        with _progress("pack", plan.num_videos) as on_video:
            names, file_format = catalog.class_names, config.file_format
            write_shards(plan, work, names, file_format, config.short_side, num_threads, on_video, store)
    elif not list(work.glob("*-of-*")):
        shutil.rmtree(work / _BEAM_FOLDER, ignore_errors=True)
        builder = PackedVideos(
            class_names=catalog.class_names,
            entries=plan.entries,
            short_side=config.short_side,
            by_beam=True,
            data_dir=str(work / _BEAM_FOLDER),
        )
        num_shards = min(config.shards, *map(len, plan.entries.values()))
        pack_by_beam(builder, work, config.file_format, num_shards, config.beam)
    with _progress("compare", plan.num_videos) as on_video:
        videos = verify_packed(plan, work, config.short_side, num_threads, on_video, store)
    if config.beam is None:
        write_tfds_metadata(work, catalog.class_names, config.file_format, _shard_lengths(plan))
    return videos


def _shard_lengths(plan: Plan) -> dict[str, list[int]]:
    return {split: [len(shard.entries) for shard in plan.shards if shard.split == split] for split in plan.entries}


def _describe(config: DataPrepareConfig, catalog: Catalog, videos: list[PackedVideo], work: Path) -> None:
    description = Description(
        dataset=config.dataset.name,
        split=config.dataset.split,
        root=config.dataset.root,
        class_names=list(catalog.class_names),
        file_format=config.file_format,
        num_shards={split: 1 + max(v.shard for v in videos if v.split == split) for split in {v.split for v in videos}},
        short_side=config.short_side,
        encoding=ENCODING if config.short_side else {},
        list_sha256=hash_list([(video.path, video.label) for video in videos]),
        videos_sha256=write_videos(work, videos),
        versions={"vswin": __version__, **{name: version(name) for name in ("tensorflow-datasets", "av")}},
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    write_description(work, description)


def _report(plan: Plan, videos: list[PackedVideo], output: Path, config: DataPrepareConfig) -> str:
    num_bytes = sum(video.num_bytes for video in videos)
    sizes = [entry.num_bytes for entries in plan.entries.values() for entry in entries]
    text = f"{output} has {count_of(len(videos), 'video')}, {_megabytes(num_bytes)}; each was compared with its file"
    if config.short_side:
        kept = sum(video.num_bytes == size for video, size in zip(videos, sizes, strict=True))
        text += (
            f". {len(videos) - kept:,} were re-encoded to a shorter side of {config.short_side} pixels, {kept:,} were "
            "no larger, or could not be decoded, and are as they were"
        )
    return f"{text}. Train with dataset={config.dataset.name} dataset.root={output}"


@contextmanager
def _progress(task: str, total: int) -> Iterator[Callable[[int], None]]:
    with make_progress_bar(console, "videos") as bar:
        number = bar.add_task(task, total=total, note="")
        yield lambda count: bar.advance(number, count)


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB"
