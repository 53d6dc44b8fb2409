"""The command line of `vswin report`; nothing here imports TensorFlow."""

import argparse

from vswin.parser import Commands

_EXAMPLES = """\
report.html is one page that can be mailed: curves, accuracies beside the published ones, the most confused classes,
the accuracy of each class, the surest right and wrong clips, configuration, protocol, machine and versions. Every
training and every evaluation ends with it; this makes it again, or for a run that was stopped or still goes on. What
is not in the folder is left out. The plots are written beside it as PNG.

examples:
  vswin report outputs/2026-01-31_101500_swin_tiny_ucf101
  vswin report 'outputs/*'"""


def add_report(commands: Commands) -> None:
    """Adds `report` to the commands of `vswin`."""
    text = "make the report of a run, one page of HTML, from the files in its folder"
    parser = commands.add_command("report", text, _EXAMPLES)
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", help="the folder of a training or an evaluation, or a pattern in quotes"
    )
    parser.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> None:
    from vswin.report.run import run_report

    run_report(arguments.runs)
