"""The command line of `vswin compare`; nothing here imports TensorFlow."""

import argparse
from pathlib import Path

from vswin.parser import Commands

_EXAMPLES = """\
Printed are what each run reached, the keys in which they differ, and for each run against the first one whether the
difference in top-1 is more than chance: an exact McNemar test and its interval on the videos that both were
tested on (`vswin evaluate run=FOLDER` writes them to predictions.csv). Runs that are not finished or not evaluated
are shown with what they have. Where labels or classes differ, nothing is compared; another protocol or other videos
are named.

examples:
  vswin compare outputs/baseline outputs/mixup
  vswin compare outputs/baseline 'outputs/*_ucf101'      the first against all others
  vswin compare 'outputs/sweep/*' --all-pairs --plot sweep.png
  vswin compare outputs/a outputs/b --json - | jq '.pairs[0].sentence'"""


def add_compare(commands: Commands) -> None:
    """Adds `compare` to the commands of `vswin`."""
    text = "set runs side by side: what they reached, what differed, and whether that is more than chance"
    parser = commands.add_command("compare", text, _EXAMPLES)
    parser.add_argument("runs", metavar="RUN", nargs="+", help="the folder of a run, or a pattern in quotes; two runs")
    parser.add_argument("--all-pairs", action="store_true", help="test each run against each, not the first alone")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="also draw the validation by epoch (.png, .pdf, .svg)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything as JSON; - for a pipe")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there already")
    parser.set_defaults(run=_compare)


def _compare(arguments: argparse.Namespace) -> None:
    from vswin.compare.run import run_compare

    run_compare(arguments.runs, arguments.all_pairs, arguments.plot, arguments.json, arguments.overwrite)
