"""Write the files of a packed data set on the cores of this machine, each file whole or not at all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from pathlib import Path
from typing import Any

import tensorflow as tf

from vswin.atomic import remove_partial, replacing
from vswin.data.packed.contents import shard_name
from vswin.data.packed.plan import Entry, Plan, Shard
from vswin.data.packed.record_files import open_array_record_writer
from vswin.data.packed.tfds_builder import Example, make_example, serialize
from vswin.data.stores import VIDEO_FILES, VideoStore
from vswin.errors import InputError
from vswin.runtime import logger


def write_shards(
    plan: Plan,
    folder: Path,
    class_names: Sequence[str],
    file_format: str,
    short_side: int | None,
    num_threads: int,
    on_video: Callable[[int], None],
    store: VideoStore = VIDEO_FILES,
) -> None:
    """Writes all files that are not there yet.

    Args:
        plan: What goes into which file.
        folder: Where they go; finished ones are kept.
        class_names: Name of each class index.
        file_format: "array_record" or "tfrecord".
        short_side: See `make_example`.
        num_threads: Files to be written side by side.
        on_video: Told how many more videos are done.
        store: Decodes the videos to be re-encoded.

    Raises:
        InputError: If a file cannot be read or written.
    """
    stop = threading.Event()

    def write(shard: Shard) -> str:
        path = folder / shard_name(shard.split, shard.number, shard.num_shards, file_format)
        if path.exists():
            on_video(len(shard.entries))
            return f"{path.name} is there already"
        remove_partial(path)
        with replacing(path) as partial, closing(_open_writer(partial, file_format)) as writer:
            for record in serialize(_make_examples(shard.entries, short_side, store, stop), class_names):
                writer.write(record)
                on_video(1)
        return f"{path.name} is written"

    pool = ThreadPoolExecutor(num_threads)
    try:
        writing = [pool.submit(write, shard) for shard in plan.shards]
        for number, done in enumerate(as_completed(writing), start=1):
            logger.info("%d of %d files: %s", number, len(writing), done.result())
    except (OSError, tf.errors.OpError) as error:
        raise InputError(f"packing ended: {error}. Finished files stay; the same command goes on from there") from error
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _make_examples(
    entries: Sequence[Entry], short_side: int | None, store: VideoStore, stop: threading.Event
) -> Iterator[tuple[str, Example]]:
    for entry in entries:
        if stop.is_set():
            raise InterruptedError("another file could not be written, or the program was stopped")
        yield make_example(entry, short_side, store)


def _open_writer(path: Path, file_format: str) -> Any:
    return open_array_record_writer(path) if file_format == "array_record" else tf.io.TFRecordWriter(str(path))
