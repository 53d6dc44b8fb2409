"""The command lines of `vswin predict` and `vswin extract`; nothing here imports TensorFlow."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from vswin.parser import Commands

_PREDICT_EXAMPLES = """\
The model brings its protocol: a run that of its evaluation, a published name the published one; weights that do not
say are given that of Kinetics. What was averaged, in which precision and where stands in the last line. Fewer views
are quicker: --clips 1 --crops 1. A file that cannot be decoded is named and passed over, and the exit code is 1.

examples:
  vswin predict jump.mp4 --model outputs/<run>
  vswin predict my/videos 'more/**/*.avi' --model outputs/<run> --csv predictions.csv
  vswin predict jump.mp4 --model swin_tiny_patch244_window877_kinetics400_1k --clips 1 --crops 1
  vswin predict my/videos --model outputs/<run> --save annotated
  vswin predict camera --model outputs/<run> --seconds 60
  vswin predict my/videos --model my_export --json - --set runtime.precision=bfloat16 | jq .predictions"""

_EXTRACT_EXAMPLES = """\
Features are what the last layer gets to see: the output of the backbone, averaged over time, height and width, as
many as it has channels (768 for swin_tiny). The file holds them row by row as `features`, float32 [N, C], beside
`path`, `start_sec` (where the clip begins) and `label` (the folder that a video lies in, below the one that was
given; empty elsewhere). Parquet needs pip install 'vswin[parquet]'.

examples:
  vswin extract my/videos --model outputs/<run> --output features.npz
  vswin extract my/videos --model outputs/<run> --output features.parquet --level clip --clips 10 --crops 1"""


def add_predict(commands: Commands) -> None:
    """Adds `predict` to the commands of `vswin`."""
    text = "say what is done in videos of your own: files, folders, patterns, or a camera"
    parser = commands.add_command("predict", text, _PREDICT_EXAMPLES)
    parser.add_argument("videos", metavar="VIDEO", nargs="+", help="a file, a folder, a pattern, camera or camera:N")
    add_model(parser)
    parser.add_argument("--top-k", type=int, default=5, metavar="K", help="best classes of each video (5)")
    parser.add_argument("--classes", type=Path, metavar="FILE", help="a class name per line, if the model has none")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the predictions as JSON; - for a pipe")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write them as CSV; - for a pipe")
    parser.add_argument(
        "--save",
        type=Path,
        metavar="FOLDER",
        help="also write a copy of each video that shows the best classes at each moment, and a bar of them over time",
    )
    parser.add_argument("--seconds", type=float, help="how long to watch the camera (until Ctrl-C)")
    add_overwrite(parser)
    parser.set_defaults(run=_predict)


def add_extract(commands: Commands) -> None:
    """Adds `extract` to the commands of `vswin`."""
    text = "write the features that a model computes of videos, as .npz or Parquet"
    parser = commands.add_command("extract", text, _EXTRACT_EXAMPLES)
    parser.add_argument("videos", metavar="VIDEO", nargs="+", help="a file, a folder or a pattern")
    add_model(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="FILE.npz or FILE.parquet")
    parser.add_argument(
        "--level",
        choices=("video", "clip"),
        default="video",
        help="average over all views of a video (default), or over the crops of each clip",
    )
    add_overwrite(parser)
    parser.set_defaults(run=_extract)


def add_model(parser: argparse.ArgumentParser, usual: str = "as the protocol says") -> None:
    """Adds the options that say what a video goes through."""
    parser.add_argument(
        "--model",
        required=True,
        help="a run folder, a published name (see `vswin models`), a checkpoint or a SavedModel",
    )
    parser.add_argument("--clips", type=int, metavar="N", help=f"clips per video, spread over it ({usual})")
    parser.add_argument("--crops", type=int, metavar="N", help=f"crops per clip: 1 or 3 ({usual})")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any key of `vswin evaluate --help` about clips, decoding or the machine; may be given several times",
    )


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Adds `--overwrite`."""
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there already")


def overrides(arguments: argparse.Namespace) -> Sequence[str]:
    """Writes the options that are short for keys as keys."""
    short = {"clip.num_clips": arguments.clips, "clip.num_crops": arguments.crops}
    return [*arguments.set, *(f"{key}={value}" for key, value in short.items() if value is not None)]


def _predict(arguments: argparse.Namespace) -> None:
    from vswin.predict.run import Outputs, run_predict

    outputs = Outputs(arguments.json, arguments.csv, arguments.save, arguments.overwrite)
    run_predict(
        arguments.videos,
        arguments.model,
        overrides(arguments),
        arguments.classes,
        arguments.top_k,
        outputs,
        arguments.seconds,
    )


def _extract(arguments: argparse.Namespace) -> None:
    from vswin.predict.extract import run_extract

    run_extract(
        arguments.videos,
        arguments.model,
        arguments.output,
        overrides(arguments),
        arguments.level,
        arguments.overwrite,
    )
