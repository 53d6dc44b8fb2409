"""`vswin bench input`: how many training clips per second the input pipeline gives."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial

import tensorflow as tf

from vswin.bench.result import Result, Row
from vswin.bench.timing import check_counts, interleave
from vswin.compose import compose_config
from vswin.data.bad_videos import BadVideos
from vswin.data.frames import FrameLoader
from vswin.data.isolated import IsolatedVideos
from vswin.data.order import Order
from vswin.data.pipeline import make_train_dataset
from vswin.data.records import VideoRecord
from vswin.data.stores import VIDEO_FILES
from vswin.errors import InputError
from vswin.schema import TrainConfig

BATCH_SIZE = 6
NUM_BATCHES = 6


def bench_input(
    videos: Sequence[str], overrides: Sequence[str], threads: Sequence[int], isolate: bool, rounds: int
) -> Result:
    """Times the pipeline of the official Kinetics recipe, or of what is changed in it.

    Args:
        videos: files, read again and again.
        overrides: of the training configuration, e.g. `["clip=16x4"]`.
        threads: numbers of threads that decode; each is tried.
        isolate: whether decoding in processes of its own is tried as well.
        rounds: times 36 clips of each.

    Returns:
        A row per number of threads and way of decoding, with `clips_per_second`.

    Raises:
        InputError: if the configuration is wrong, or a video cannot be decoded.
    """
    check_counts({"--threads": min(threads)})
    config = compose_input(overrides)
    with ExitStack() as stack:
        loaders = {"": FrameLoader()}
        if isolate:
            loaders[", isolated"] = stack.enter_context(closing(FrameLoader(store=IsolatedVideos(VIDEO_FILES))))
        contenders = {
            f"{count} thread{'s' if count > 1 else ''}{way}": partial(time_batches, config, videos, count, loader)
            for count in dict.fromkeys(threads)
            for way, loader in loaders.items()
        }
        seconds = interleave(contenders, rounds)
    options = {"videos": [path.rpartition("/")[2] for path in videos], "overrides": list(overrides)}
    result = Result("input", options, [])
    for name, measured in seconds.items():
        row = Row(name, measured)
        row.figures = {"clips_per_second": NUM_BATCHES * BATCH_SIZE / row.median}
        result.rows.append(row)
    return result


def compose_input(overrides: Sequence[str]) -> TrainConfig:
    """Composes a training run by the official Kinetics recipe, or what is changed in it."""
    return compose_config("train", ["dataset=kinetics400", *overrides], TrainConfig)


def time_batches(config: TrainConfig, videos: Sequence[str], num_threads: int, loader: FrameLoader) -> float:
    """Times 36 clips after a first batch, which fills the pipeline.

    Args:
        config: clip and augmentation.
        videos: files, read again and again.
        num_threads: threads that decode.
        loader: reads the frames.

    Returns:
        Seconds.

    Raises:
        InputError: if a video cannot be decoded.
    """
    bad = BadVideos()
    records = [VideoRecord(path, 0) for path in videos] * BATCH_SIZE
    order = Order(seed=0, batch_size=BATCH_SIZE, epochs=NUM_BATCHES + 2)
    options = tf.data.Options()
    options.threading.private_threadpool_size = num_threads
    dataset = make_train_dataset(records, config.clip, config.augment, config.dataset.allow_flip, order, bad, loader)
    batches = iter(dataset.with_options(options))
    seconds = _time_calls(lambda: next(batches))
    if len(bad) > 0:
        path, cause, _ = bad.rows()[0]
        raise InputError(f"--videos {path} cannot be decoded ({cause}); name others")
    return seconds


def _time_calls(call: Callable[[], object]) -> float:
    call()
    start = time.perf_counter()
    for _ in range(NUM_BATCHES):
        call()
    return time.perf_counter() - start
