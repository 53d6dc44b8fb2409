"""The command line of `vswin explain`; nothing here imports TensorFlow."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from vswin.errors import InputError
from vswin.parser import Commands
from vswin.predict.command import add_model, add_overwrite, overrides

if TYPE_CHECKING:
    from vswin.zoo import Triple

_EXAMPLES = """\
Grad-CAM (Selvaraju et al. 2017) shows where in time and space the features lie that speak for a class: of each channel
the average gradient of the class's logit, times the feature, summed over channels, and what is above 0. The last stage
has a token for 2 frames of 32 x 32 pixels, interpolated; --stage 3 has four times as many, of a rougher meaning. Each
clip is divided by its own maximum: heat compares places within a clip, not clips. It does not show what speaks against
a class, and as tokens have seen their surroundings, the pixels below the heat need not be the cause.

FOLDER gets of each video a film (.mp4, each frame beside itself with heat) and a contact sheet (.png) of what the model
sees: the middle clip and the centre crop, or with --clips and --crops more of them, one after the other. --npz adds the
numbers: `heat`, float32 [views, frames, rows, columns] in [0, 1], `map`, the same in tokens and undivided, and the
numbers (`frames`) and times (`seconds`) of the frames, [views, frames].

examples:
  vswin explain jump.mp4 --model outputs/<run> --output explained
  vswin explain jump.mp4 --model outputs/<run> --output high_jump --class "high jump" --clips 4
  vswin explain my/videos --model swin_tiny_patch244_window877_kinetics400_1k --output stage_3 --stage 3 --npz
  vswin explain jump.mp4 --model outputs/<run> --output attention --attention 4.1 --token 16,112,80"""


def add_explain(commands: Commands) -> None:
    """Adds `explain` to the commands of `vswin`."""
    text = "show what in a video speaks for a class (Grad-CAM), or where a token looks (attention)"
    parser = commands.add_command("explain", text, _EXAMPLES)
    parser.add_argument("videos", metavar="VIDEO", nargs="+", help="a file, a folder or a pattern")
    add_model(parser, "1")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="where films and sheets go")
    parser.add_argument("--class", dest="label", metavar="CLASS", help="a name, or a number from 0 (the predicted one)")
    parser.add_argument("--stage", type=int, metavar="N", help="whose features, from 1 on (the last)")
    parser.add_argument(
        "--attention", metavar="STAGE.BLOCK", help="show the attention of a block instead, averaged over its heads"
    )
    parser.add_argument(
        "--token",
        metavar="T,Y,X",
        help="whose attention: the token at this frame, row and column of the clip the model sees, from 0 (the middle)",
    )
    parser.add_argument("--classes", type=Path, metavar="FILE", help="a class name per line, if the model has none")
    parser.add_argument("--npz", action="store_true", help="write the numbers, too")
    add_overwrite(parser)
    parser.set_defaults(run=_explain)


def _explain(arguments: argparse.Namespace) -> None:
    if arguments.attention is not None and (arguments.label is not None or arguments.stage is not None):
        raise InputError("--attention has no class, and names its stage itself; leave out --class and --stage")
    block = None if arguments.attention is None else _read_block(arguments.attention)
    place = None if arguments.token is None else _read_place(arguments.token)
    from vswin.explain.run import Outputs, Question, run_explain

    run_explain(
        arguments.videos,
        arguments.model,
        Outputs(arguments.output, arguments.npz, arguments.overwrite),
        Question(arguments.label, arguments.stage, block, place),
        overrides(arguments),
        arguments.classes,
    )


def _read_block(text: str) -> tuple[int, int]:
    try:
        stage, block = (int(number) for number in text.split("."))
    except ValueError:
        raise InputError(f"--attention {text}: write STAGE.BLOCK, both from 1 on, e.g. 4.1") from None
    return stage, block


def _read_place(text: str) -> "Triple":
    try:
        frame, row, column = (int(number) for number in text.split(","))
    except ValueError:
        raise InputError(f"--token {text}: write frame,row,column, e.g. 16,112,80") from None
    return frame, row, column
