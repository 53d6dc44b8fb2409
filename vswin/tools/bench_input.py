"""`vswin bench input`: how many training clips per second the input pipeline gives."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import tensorflow as tf

from vswin.config.compose import compose_config
from vswin.config.schema import TrainConfig
from vswin.console import count_of
from vswin.data.bad_videos import BadVideos
from vswin.data.decode import VIDEO_FILES
from vswin.data.frames import FrameLoader
from vswin.data.isolated import IsolatedVideos
from vswin.data.order import Order
from vswin.data.pipeline import make_train_dataset
from vswin.data.pyav_encoder import shrink_video
from vswin.data.samples import Sample
from vswin.errors import InputError
from vswin.tools.bench_result import Result, Row, check_counts, interleave

BATCH_SIZE = 6
NUM_BATCHES = 6
# Generated videos: pixels of the short side, as in the usual copies of Kinetics; width and height before resizing.
_SHORT_SIDE = 256
_DRAWN = (640, 480)
_RATE = 25.0


def bench_input(
    videos: Sequence[str], overrides: Sequence[str], threads: Sequence[int], isolate: bool, rounds: int
) -> Result:
    """Times the input pipeline of the official Kinetics recipe, with overrides such as `["clip=16x4"]`.

    Each round measures 36 clips for each number of decoding threads; with `isolate`, also with decoding in separate
    processes. The files of `videos` are read repeatedly. Rows have `clips_per_second`.
    """
    check_counts({"--threads": min(threads)})
    config = compose_input(overrides)
    with ExitStack() as stack:
        loaders = {"": FrameLoader()}
        if isolate:
            loaders[", isolated"] = stack.enter_context(closing(FrameLoader(store=IsolatedVideos(VIDEO_FILES))))
        contenders = {
            count_of(count, "thread") + variant: partial(time_batches, config, videos, count, loader)
            for count in dict.fromkeys(threads)
            for variant, loader in loaders.items()
        }
        seconds = interleave(contenders, rounds)
    options = {"videos": [path.rpartition("/")[2] for path in videos], "overrides": list(overrides)}
    rows = [Row(name, measured) for name, measured in seconds.items()]
    for row in rows:
        row.figures = {"clips_per_second": NUM_BATCHES * BATCH_SIZE / row.median}
    return Result("input", options, rows)


def compose_input(overrides: Sequence[str]) -> TrainConfig:
    """Composes a training run by the official Kinetics recipe, with overrides."""
    return compose_config("train", ["dataset=kinetics400", *overrides], TrainConfig)


def time_batches(config: TrainConfig, videos: Sequence[str], num_threads: int, loader: FrameLoader) -> float:
    """Times 36 clips, in seconds, after a first batch that fills the pipeline.

    An `InputError` if a video cannot be decoded.
    """
    bad = BadVideos()
    samples = [Sample(path, (0,)) for path in videos] * BATCH_SIZE
    order = Order(seed=0, batch_size=BATCH_SIZE, epochs=NUM_BATCHES + 2)
    options = tf.data.Options()
    options.threading.private_threadpool_size = num_threads
    dataset = make_train_dataset(samples, config.clip, config.augment, config.dataset.allow_flip, order, bad, loader)
    batches = iter(dataset.with_options(options))
    next(batches)
    start = time.perf_counter()
    for _ in range(NUM_BATCHES):
        next(batches)
    seconds = time.perf_counter() - start
    if len(bad) > 0:
        path, cause, _ = bad.rows()[0]
        raise InputError(f"--videos {path} cannot be decoded ({cause}); name others")
    return seconds


@contextmanager
def videos_at(paths: Sequence[Path] | None, num_videos: int = 3, num_frames: int = 150) -> Iterator[list[str]]:
    """Gives the videos to measure with: the named files, or generated videos, which are deleted afterwards."""
    if paths is None:
        with tempfile.TemporaryDirectory(prefix="vswin_bench_") as folder:
            yield [str(_make_video(Path(folder, f"{number}.mp4"), number, num_frames)) for number in range(num_videos)]
        return
    for path in paths:
        if not path.is_file():
            raise InputError(f"--videos {path}: there is no such file; name video files, or leave --videos out")
    yield [str(path) for path in paths]


def _make_video(path: Path, seed: int, num_frames: int) -> Path:
    """Draws and encodes a video: coarse and fine texture that drifts, turns and grows, with grain."""
    rng = np.random.default_rng(seed)
    width, height = _DRAWN
    scene = np.mean([_draw_texture(rng, cells) for cells in (6, 24, 96)], axis=0)  # [2W, 2W, 3]
    scene = np.clip(128 + 2 * (scene - 128), 0, 255).astype(np.uint8)
    raw = path.with_suffix(".avi")
    writer = cv2.VideoWriter(str(raw), cv2.CAP_OPENCV_MJPEG, cv2.VideoWriter.fourcc(*"MJPG"), _RATE, _DRAWN)
    for number in range(num_frames):
        turned = cv2.getRotationMatrix2D((width, width), 0.1 * number, 1 + 0.002 * number)
        moved = [[0, 0, 0.7 * number - width / 2], [0, 0, 0.4 * number - width + height / 2]]
        frame = cv2.warpAffine(scene, np.add(turned, moved), _DRAWN, borderMode=cv2.BORDER_REFLECT)  # [H, W, 3]
        grain = rng.integers(0, 9, (height, width, 1), np.uint8)
        writer.write(cv2.add(frame, np.repeat(grain, 3, axis=2)))
    writer.release()
    content = shrink_video(str(raw), _SHORT_SIDE)
    assert content is not None, "what is drawn is larger"
    path.write_bytes(content)
    raw.unlink()
    return path


def _draw_texture(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Interpolates random colours on a grid, uint8 [2W, 2W, 3] for frames of width W."""
    colours = rng.integers(0, 256, (cells, cells, 3), np.uint8)
    return cv2.resize(colours, (2 * _DRAWN[0], 2 * _DRAWN[0]), interpolation=cv2.INTER_CUBIC)
