"""Measure evaluation with decoding: all views of a video at once, as in `evaluate.py`, against one view at a time.

python benchmarks/evaluation.py                                    swin_micro, 4 clips x 3 crops of 32 x 224 x 224
python benchmarks/evaluation.py model=swin_tiny --videos a.mp4     overrides as for evaluate.py
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from vswin.config.compose import compose_config
from vswin.config.schema import ClipConfig, EvaluateConfig
from vswin.data.bad_videos import BadVideos
from vswin.data.frames import FrameLoader
from vswin.data.pipeline import make_eval_dataset
from vswin.data.samples import Sample
from vswin.data.sampling import uniform_clips
from vswin.data.transforms import three_crops
from vswin.data.views import load_protocol_views
from vswin.errors import DecodeError, InputError, clean_errors
from vswin.evaluation.views import average_views, view_logits
from vswin.models.video_swin import VideoSwin
from vswin.models.zoo import configured_size
from vswin.runtime import set_precision
from vswin.tools.bench_input import videos_at
from vswin.tools.bench_model import NUM_CLASSES
from vswin.tools.bench_result import Result, Row, interleave, show_result, timed
from vswin.weights.build import build_model


def bench_evaluation(videos: Sequence[str], overrides: Sequence[str], rounds: int) -> Result:
    """Times the evaluation of videos, decoding included.

    Args:
        videos: files.
        overrides: of the evaluation's configuration, e.g. `["model=swin_tiny", "clip.num_frames=16"]`; clips must be
            dense and centred, with three crops.
        rounds: evaluations of all videos with each variant.

    Returns:
        A row for one view at a time and a row for all views at once, with `videos_per_second`; as references, the
        reading of each variant, without the model and on one thread.

    Raises:
        InputError: if the configuration is wrong, or the predictions of the two variants differ.
    """
    config = compose_config("evaluate", ["dataset=kinetics400", "init_from=null", *overrides], EvaluateConfig)
    clip = config.clip
    if (clip.sampling, clip.spacing, clip.num_crops) != ("dense", "centred", 3):
        raise InputError("clip: this benchmark takes dense, centred clips with three crops; leave these keys out")
    set_precision(config.runtime.precision)
    model = build_model(configured_size(config.model), NUM_CLASSES)
    set_precision("float32")
    variants = {
        "one by one": _one_by_one(model, videos, clip),
        "all views": _all_views(model, videos, clip, config.average),
    }
    _check_equal(*(predict() for predict in variants.values()))
    loader = FrameLoader()
    alone = {
        "reading one by one": lambda: [
            _load_view(path, view, clip, loader) for path in videos for view in _views(clip)
        ],
        "reading all views": lambda: [load_protocol_views(path, clip, loader) for path in videos],
    }
    seconds = interleave({name: timed(run) for name, run in (variants | alone).items()}, rounds)
    options = {"videos": [path.rpartition("/")[2] for path in videos], "overrides": list(overrides)}
    result = Result("eval", options, [])
    for name, measured in seconds.items():
        row = Row(name, measured)
        row.figures = {"videos_per_second": len(videos) / row.median}
        (result.references if name in alone else result.rows).append(row)
    return result


def _all_views(model: VideoSwin, videos: Sequence[str], clip: ClipConfig, average: str) -> Callable[[], np.ndarray]:
    """Makes a function that predicts videos as an evaluation does: float32 [videos, K]."""
    records = [Sample(path, (0,)) for path in videos]

    @tf.function
    def predict(views: tf.Tensor) -> tf.Tensor:
        logits = view_logits(lambda clips: model(clips, training=False), views, clip.views_per_step)
        return average_views(logits, average)

    def run() -> np.ndarray:
        batches = make_eval_dataset(records, clip, 1, BadVideos(), loader=FrameLoader())
        return np.concatenate([predict(batch["views"]).numpy() for batch in batches])

    return run


def _one_by_one(model: VideoSwin, videos: Sequence[str], clip: ClipConfig) -> Callable[[], np.ndarray]:
    """Makes a function that decodes and predicts one view at a time: float32 [videos, K]."""
    loader = FrameLoader()
    predict = tf.function(lambda clips: tf.nn.softmax(model(clips, training=False)))

    def predict_view(path: str, view: int) -> np.ndarray:
        return predict(_load_view(path, view, clip, loader)[np.newaxis]).numpy()[0]

    return lambda: np.stack([np.mean([predict_view(path, view) for view in _views(clip)], axis=0) for path in videos])


def _views(clip: ClipConfig) -> range:
    return range(clip.num_clips * clip.num_crops)


def _load_view(path: str, view: int, clip: ClipConfig, loader: FrameLoader) -> np.ndarray:
    """Decodes one view: uint8 [T, H, W, 3]."""

    def choose(num_video_frames: int) -> np.ndarray:
        clips = uniform_clips(num_video_frames, clip.num_frames, clip.frame_stride, clip.num_clips)
        return clips[view % clip.num_clips]

    try:
        frames = loader.load(path, clip.resize, choose)
    except DecodeError as error:
        raise InputError(f"--videos {path} cannot be decoded ({error.cause}); name others") from error
    return three_crops(frames, clip.crop)[view // clip.num_clips]


def _check_equal(one_by_one: np.ndarray, all_views: np.ndarray) -> None:
    if not np.allclose(one_by_one, all_views, atol=1e-3):
        difference = np.abs(one_by_one - all_views).max()
        raise InputError(
            f"the two variants differ by {difference:.3g} in their probabilities, so there is nothing to compare; "
            "try runtime.precision=float32 and average=prob"
        )


def main() -> None:
    """Runs the benchmark with the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*")
    parser.add_argument("--videos", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--compare", type=Path)
    given = parser.parse_args()
    with videos_at(given.videos) as videos:
        result = bench_evaluation(videos, given.overrides, given.rounds)
    show_result(result, given.json, given.compare)


if __name__ == "__main__":
    with clean_errors():
        main()
