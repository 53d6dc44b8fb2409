"""The console command: `vswin train` and `vswin evaluate` are train.py and evaluate.py from anywhere."""

import argparse
import json
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

from vswin import __version__
from vswin.bench.command import add_bench
from vswin.compare.command import add_compare
from vswin.config import ROOT
from vswin.config_help import describe_keys, print_help_if_asked
from vswin.errors import InputError, clean_errors
from vswin.explain.command import add_explain
from vswin.parser import Commands, Parser
from vswin.predict.command import add_extract, add_predict
from vswin.report.command import add_report
from vswin.schema import DataCheckConfig, DataPrepareConfig, DataShowConfig, TrainConfig
from vswin.tune.command import add_tune

SCRIPTS = {
    "train": ("train.py", "fine-tune: KEY=VALUE ..., the same as python train.py"),
    "evaluate": ("evaluate.py", "test on several views of every video: KEY=VALUE ..., the same as python evaluate.py"),
}
_ABOUT = "Fine-tune and evaluate Video Swin Transformers for action recognition."
_EXAMPLES = """\
examples:
  vswin train                          swin_micro on motion: minutes
  vswin train model=swin_base dataset=folder dataset.root=my/videos
  vswin evaluate run=outputs/<run>
  vswin predict jump.mp4 --model outputs/<run>

vswin COMMAND --help says more about a command, with examples. VSWIN_DEBUG=1 in the environment shows where an
error comes from; NO_COLOR=1 turns colours off."""
_WEIGHTS = "a published name, a checkpoint (.pth, .safetensors, .h5), a SavedModel, or the folder of a run"
# The configuration whose losses are known; importing it from where they are used would bring TensorFlow.
SELFTEST_OVERRIDES = ("model=swin_micro", "dataset=motion", "optimizer=official", "augment=kinetics")
_COMPLETION = """\
Run one of these once, and open a new terminal:

examples:
  vswin completion bash >> ~/.bashrc
  vswin completion zsh >> ~/.zshrc    below the line with compinit
  vswin completion fish > ~/.config/fish/completions/vswin.fish

Then TAB completes the commands and their options, files, published names, and for train, evaluate and data the
keys and their values: vswin train model=swin_<TAB>, optimizer.<TAB>."""
_DATA_COMMANDS = {
    "check": "open or decode every file: missing, broken, short, odd-sized and duplicate ones, class balance, counts",
    "prepare": "pack the encoded files into a few large ones, for clusters and network drives",
    "show": "draw augmented training clips as a picture or a short film",
}
_MODELS_EXAMPLES = """\
examples:
  vswin models
  vswin models --sources          every copy and its address
  vswin models --json | jq '.[].name'"""
_INSPECT_EXAMPLES = """\
examples:
  vswin inspect swin_tiny_k400_1k.pth
  vswin inspect outputs/<run> --tensors
  vswin inspect swin_tiny_patch244_window877_kinetics400_1k --source innat"""
_CONVERT_EXAMPLES = """\
examples:
  vswin convert outputs/<run> best.safetensors
  vswin convert swin_tiny_k400_1k.pth swin_tiny.h5"""
_EXPORT_EXAMPLES = """\
examples:
  vswin export outputs/<run> my_export
  vswin export outputs/<run> model.tflite --frames 16
  vswin export swin_tiny_k400_1k.pth model.onnx --model swin_tiny"""
_SPLITS_EXAMPLES = """\
examples:
  vswin splits experiment=swin_base_ucf101
  vswin splits model=swin_tiny dataset=hmdb51 epochs=15"""
_SELFTEST_EXAMPLES = """\
examples:
  vswin selftest
  vswin selftest runtime.precision=bfloat16"""
_SOURCE = "which copy of a published name, e.g. official, innat, torchvision"


def main() -> None:
    """Runs the command named on the command line."""
    arguments = sys.argv[1:]
    with clean_errors():
        if "_ARGCOMPLETE" in os.environ:  # set by the script of `vswin completion`
            from vswin.completion import complete

            complete(make_parser())
        if arguments and arguments[0] in SCRIPTS:
            # Hydra reads these, in its own grammar.
            script, _ = SCRIPTS[arguments[0]]
            print_help_if_asked(arguments[1:], arguments[0], f"vswin {arguments[0]}")
            sys.argv = [f"vswin {arguments[0]}", *arguments[1:]]
            runpy.run_path(str(ROOT / script), run_name="__main__")
            return
        parsed = make_parser().parse_args(arguments or ["--help"])
        run: Callable[[argparse.Namespace], None] = parsed.run
        run(parsed)


def make_parser() -> Parser:
    """Describes all commands; nothing here imports TensorFlow."""
    parser = Parser(prog="vswin", description=_ABOUT, epilog=_EXAMPLES)
    parser.add_argument("--version", action="version", version=f"vswin {__version__}")
    commands = parser.add_commands()
    commands.head("train and test")
    for name, (_, text) in SCRIPTS.items():
        commands.add_parser(name, help=text, add_help=False)
    _add_splits(commands)
    add_tune(commands)
    add_report(commands)
    add_compare(commands)
    commands.head("use a model")
    add_predict(commands)
    add_extract(commands)
    add_explain(commands)
    commands.head("weights")
    _add_models(commands)
    _add_inspect(commands)
    _add_convert(commands)
    _add_export(commands)
    commands.head("videos and this machine")
    _add_data(commands)
    _add_selftest(commands)
    add_bench(commands)
    _add_completion(commands)
    return parser


def _add_models(commands: Commands) -> None:
    text = "list the published models: accuracy, cost, where their weights are and whether they are here"
    parser = commands.add_command("models", text, _MODELS_EXAMPLES)
    parser.add_argument("--sources", action="store_true", help="show every copy and its address")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.set_defaults(run=_models)


def _models(arguments: argparse.Namespace) -> None:
    from vswin.models_table import models_records, print_models

    if arguments.json:
        print(json.dumps(models_records(), indent=2))
    else:
        print_models(show_sources=arguments.sources)


def _add_inspect(commands: Commands) -> None:
    text = "say what a file of weights holds and what it can be used for; nothing in it is run"
    parser = commands.add_command("inspect", text, _INSPECT_EXAMPLES)
    parser.add_argument("weights", metavar="FILE", help=_WEIGHTS)
    parser.add_argument("--source", help=_SOURCE)
    parser.add_argument("--tensors", action="store_true", help="list every tensor")
    parser.set_defaults(run=_inspect)


def _inspect(arguments: argparse.Namespace) -> None:
    from vswin.weights.checkpoint import open_weights
    from vswin.weights.description import print_checkpoint

    print_checkpoint(open_weights(arguments.weights, arguments.source), arguments.tensors)


def _add_convert(commands: Commands) -> None:
    text = "write weights in another format, under their official names"
    parser = commands.add_command("convert", text, _CONVERT_EXAMPLES)
    parser.add_argument("weights", metavar="IN", help=_WEIGHTS)
    parser.add_argument(
        "output",
        metavar="OUT",
        type=Path,
        help="FILE.safetensors, FILE.h5 (a vswin checkpoint) or a SavedModel folder",
    )
    parser.add_argument("--source", help=_SOURCE)
    parser.set_defaults(run=_convert)


def _convert(arguments: argparse.Namespace) -> None:
    from vswin.export import convert
    from vswin.runtime import start_log

    start_log(None)
    convert(arguments.weights, arguments.output, arguments.source)


def _add_export(commands: Commands) -> None:
    text = "write a model for other programs: a SavedModel with the interface of the TF-Hub collection, TFLite or ONNX"
    parser = commands.add_command("export", text, _EXPORT_EXAMPLES)
    parser.add_argument("weights", metavar="WEIGHTS", help=_WEIGHTS)
    parser.add_argument("output", metavar="OUT", type=Path, help="folder (savedmodel) or file to write")
    parser.add_argument("--format", help="savedmodel, tflite or onnx; by default as the ending of OUT says")
    parser.add_argument("--model", help="size of the network, where the weights do not say it, e.g. swin_tiny")
    parser.add_argument("--frames", type=int, help="frames of a clip, where the shape is fixed (those of the run)")
    parser.add_argument("--size", type=int, help="pixels of a frame's side, where it is fixed (those of the run)")
    parser.set_defaults(run=_export)


def _export(arguments: argparse.Namespace) -> None:
    from vswin.export import run_export
    from vswin.runtime import start_log

    start_log(None)
    run_export(arguments.weights, arguments.output, arguments.format, arguments.model, arguments.frames, arguments.size)


def _add_data(commands: Commands) -> None:
    text = "check a data set, pack it for a cluster, or show what training makes of its clips"
    parser = commands.add_command(
        "data", text, "The learning rate and the batch size that suit what training sees: vswin tune."
    )
    actions = parser.add_commands()
    for name, text in _DATA_COMMANDS.items():
        action = actions.add_command(name, text, describe_keys(f"data_{name}"))
        action.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="e.g. dataset=ucf101, see below")
        action.set_defaults(run=_data, action=name)


def _data(arguments: argparse.Namespace) -> None:
    # Composed first: a misspelt key is answered before anything large is imported.
    from vswin.compose import compose_config

    match arguments.action:
        case "check":
            check = compose_config("data_check", arguments.overrides, DataCheckConfig)
            from vswin.data.check import run_check

            run_check(check)
        case "prepare":
            prepare = compose_config("data_prepare", arguments.overrides, DataPrepareConfig)
            from vswin.data.prepare import run_prepare

            run_prepare(prepare)
        case "show":
            show = compose_config("data_show", arguments.overrides, DataShowConfig)
            from vswin.training.show import run_show

            run_show(show)


def _add_splits(commands: Commands) -> None:
    text = "train and test on each of the three official splits of a data set, and print the mean"
    parser = commands.add_command("splits", text, _SPLITS_EXAMPLES)
    parser.add_argument(
        "overrides", metavar="KEY=VALUE", nargs="*", help="as for train, e.g. experiment=swin_base_ucf101"
    )
    parser.set_defaults(run=_splits)


def _splits(arguments: argparse.Namespace) -> None:
    from vswin.compose import compose_config

    config = compose_config("train", arguments.overrides, TrainConfig)
    from vswin.splits import run_splits

    run_splits(config, arguments.overrides)


def _add_selftest(commands: Commands) -> None:
    text = "train for fifty steps and compare their losses with known ones: does this installation work as it should?"
    parser = commands.add_command("selftest", text, _SELFTEST_EXAMPLES)
    parser.add_argument("overrides", metavar="runtime.KEY=VALUE", nargs="*", help="e.g. runtime.precision=float16")
    parser.add_argument(
        "--record", action="store_true", help="store the losses as the known ones, after a change of vswin"
    )
    parser.set_defaults(run=_selftest)


def _selftest(arguments: argparse.Namespace) -> None:
    other = [override for override in arguments.overrides if not override.startswith("runtime.")]
    if other:
        raise InputError(f"{other[0]}: the self-test has known losses for one configuration; only runtime.* may be set")
    from vswin.compose import compose_config

    overrides = [*SELFTEST_OVERRIDES, *arguments.overrides]
    config = compose_config("train", overrides, TrainConfig)
    from vswin.selftest import run_selftest

    run_selftest(config, arguments.record)


def _add_completion(commands: Commands) -> None:
    text = "print the script that teaches a shell to complete commands, options, keys and names"
    parser = commands.add_command("completion", text, _COMPLETION)
    parser.add_argument("shell", metavar="SHELL", choices=("bash", "zsh", "fish"), help="bash, zsh or fish")
    parser.set_defaults(run=_completion)


def _completion(arguments: argparse.Namespace) -> None:
    from vswin.completion import script

    print(script(arguments.shell))
