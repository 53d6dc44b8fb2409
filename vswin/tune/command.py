"""The command line of `vswin tune`; nothing here imports TensorFlow."""

import argparse
from pathlib import Path

from vswin.parser import Commands, Parser

_LR_EXAMPLES = """\
The weights the run would start from are trained with a learning rate that rises from step to step, until the loss
diverges. Everything else is as in the run: clips, optimizer with its groups and their ratios, precision, devices.
Suggested is the lower of two: the rate at which the loss falls fastest, and a third of the rate at which it is lowest
(L. N. Smith, Cyclical Learning Rates for Training Neural Networks, 2015). Rates that teach span about a factor of ten,
for which the default has 33 steps; where the curve is too noisy for a suggestion, more steps or a larger batch help.
Nothing is written into the run's folder.
See first what training sees: vswin data show.

examples:
  vswin tune lr                                          swin_micro on motion
  vswin tune lr model=swin_tiny dataset=folder dataset.root=my/videos batch_size=8
  vswin tune lr model=swin_base dataset=ucf101 --min 1e-7 --max 1e-1 --steps 400"""
_BATCH_EXAMPLES = """\
The real model, optimizer and precision take steps on made-up clips of the configured shape, each batch size in a
process of its own, on one device: first from the estimate that a run prints, then doubling, then halving the gap. On
a CPU a size fits while its process holds less than the limit; on a GPU, until TensorFlow is refused memory.
runtime.micro_batches is 1 in the trials. What clips of the configured shape look like: vswin data show.

examples:
  vswin tune batch                                       swin_micro on clips as motion has them
  vswin tune batch model=swin_tiny dataset=ucf101 runtime.remat=true
  vswin tune batch model=swin_base clip=16x4 --limit-gb 12 --max-batch 32"""


def add_tune(commands: Commands) -> None:
    """Adds `tune` and its subcommands to those of `vswin`."""
    text = "find settings by trying: the learning rate, the largest batch that fits into memory"
    end = "vswin tune COMMAND --help says more about a command. What training sees: vswin data show."
    tunings = commands.add_command("tune", text, end).add_commands()
    _add_lr(tunings)
    _add_batch(tunings)


def _add(tunings: Commands, name: str, text: str, epilog: str) -> Parser:
    parser = tunings.add_command(name, text, epilog)
    parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="as for train, e.g. model=swin_tiny")
    return parser


def _add_lr(tunings: Commands) -> None:
    text = "learning-rate range test: train for some steps with a rising rate and suggest one"
    parser = _add(tunings, "lr", text, _LR_EXAMPLES)
    parser.add_argument("--min", type=float, default=1e-6, metavar="RATE", help="rate of the first step (1e-6)")
    parser.add_argument("--max", type=float, default=1.0, metavar="RATE", help="rate of the last step (1)")
    parser.add_argument("--steps", type=int, default=200, metavar="N", help="training steps, at least 20 (200)")
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="a new folder for curve and plot (outputs/<date>_tune_lr_...)"
    )
    parser.set_defaults(run=_lr)


def _lr(arguments: argparse.Namespace) -> None:
    # Checked first: a misspelt key is answered before anything large is imported.
    from vswin.compose import compose_config
    from vswin.schema import TrainConfig
    from vswin.tune.checks import check_alone, check_sweep

    check_sweep(arguments.min, arguments.max, arguments.steps)
    config = compose_config("train", arguments.overrides, TrainConfig)
    check_alone(config)
    from vswin.tune.rates import run_tune_rates

    span = (arguments.min, arguments.max)
    run_tune_rates(config, arguments.overrides, span, arguments.steps, arguments.output)


def _add_batch(tunings: Commands) -> None:
    text = "largest batch per device whose training step fits into memory, and where it stops being faster"
    parser = _add(tunings, "batch", text, _BATCH_EXAMPLES)
    parser.add_argument(
        "--limit-gb",
        type=float,
        metavar="GB",
        help="memory that a training process may take (CPU: nine tenths of what is free; GPU: all)",
    )
    parser.add_argument("--max-batch", type=int, default=256, metavar="N", help="largest batch that is tried (256)")
    parser.set_defaults(run=_batch)


def _batch(arguments: argparse.Namespace) -> None:
    from vswin.compose import compose_config
    from vswin.schema import TrainConfig
    from vswin.tune.checks import check_alone, check_search

    check_search(arguments.limit_gb, arguments.max_batch)
    config = compose_config("train", arguments.overrides, TrainConfig)
    check_alone(config)
    from vswin.tune.batch import run_tune_batch

    run_tune_batch(config, arguments.overrides, arguments.limit_gb, arguments.max_batch)
