"""The console command: `vswin train` and `vswin evaluate` are train.py and evaluate.py from anywhere."""

import runpy
import sys

from vswin import __version__
from vswin.config import ROOT

USAGE = """usage: vswin COMMAND [ARGUMENT ...]

  vswin train [KEY=VALUE ...]       fine-tune; the same as python train.py
  vswin evaluate [KEY=VALUE ...]    test on several views of every video; the same as python evaluate.py
  vswin COMMAND --help              the keys of a command and their choices
  vswin --version
"""

SCRIPTS = {"train": "train.py", "evaluate": "evaluate.py"}


def main() -> None:
    """Runs the command named on the command line."""
    arguments = sys.argv[1:]
    if arguments == ["--version"]:
        print(f"vswin {__version__}")
    elif arguments and arguments[0] in SCRIPTS:
        script = ROOT / SCRIPTS[arguments[0]]
        sys.argv = [str(script), *arguments[1:]]
        runpy.run_path(str(script), run_name="__main__")
    elif not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
    else:
        raise SystemExit(f"error: vswin has no command {arguments[0]!r}\n\n{USAGE}")
