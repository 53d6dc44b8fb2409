"""Measure how long a user waits for the help of train.py, and for the first training step.

python benchmarks/startup.py                                       swin_micro on motion, generated beforehand
python benchmarks/startup.py model=swin_tiny dataset=ucf101        your own run
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from vswin.config.load import ROOT
from vswin.data.motion import prepare_motion
from vswin.errors import InputError, clean_errors
from vswin.tools.bench_result import Result, Row, interleave, show_result, timed

_HELP = [sys.executable, str(ROOT / "train.py"), "--help"]
_SECONDS_BETWEEN_LOOKS = 0.01


def bench_startup(overrides: Sequence[str], rounds: int) -> Result:
    """Times processes from their start.

    Args:
        overrides: of the training run, e.g. `["dataset=folder", "dataset.root=..."]`; without a data set, motion is
            generated beforehand.
        rounds: starts of each process.

    Returns:
        Rows for `train.py --help` and for the first step, until its state is saved; as references, a bare Python and
        the import of TensorFlow. `notes` list the packages that the help imports.

    Raises:
        InputError: if a process fails.
    """
    with tempfile.TemporaryDirectory(prefix="vswin_bench_") as scratch:
        folder = Path(scratch)
        if not any(override.startswith("dataset") for override in overrides):
            prepare_motion(folder / "motion")
            overrides = [*overrides, f"dataset.root={folder / 'motion'}"]
        seconds = interleave(
            {
                "train.py --help": timed(partial(_call, _HELP)),
                "first training step": timed(partial(_take_first_step, overrides, folder)),
                "bare Python": timed(partial(_call, [sys.executable, "-c", "pass"])),
                "import tensorflow, tf_keras": timed(
                    partial(_call, [sys.executable, "-c", "import vswin, tensorflow, tf_keras"])
                ),
            },
            rounds,
        )
    rows = [Row(name, measured) for name, measured in seconds.items()]
    options = {"overrides": [override for override in overrides if scratch not in override]}
    result = Result("startup", options, rows[:2], rows[2:])
    result.notes["train.py --help imports"] = list_imports(_HELP)
    return result


def list_imports(command: Sequence[str]) -> list[str]:
    """Lists the packages outside the standard library that a Python process imports, in alphabetical order."""
    done = _call([command[0], "-X", "importtime", *command[1:]])
    modules = re.findall(r"^import time:.*[|] +([\w.]+)$", done.stderr, re.MULTILINE)
    packages = {module.partition(".")[0] for module in modules} - set(sys.stdlib_module_names)
    return sorted(package for package in packages if not package.startswith("_"))


def _call(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise InputError(_describe_failure(command, done.returncode, done.stderr))
    return done


def _take_first_step(overrides: Sequence[str], folder: Path) -> None:
    """Starts a training run, waits until its first step is saved, and ends it."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        output, log = Path(scratch) / "run", Path(scratch) / "log"
        command = [sys.executable, str(ROOT / "train.py"), *overrides, f"output_dir={output}", "save_steps=1"]
        with log.open("w") as written:
            process = subprocess.Popen(command, stdout=written, stderr=subprocess.STDOUT)
        try:
            while not list(output.glob("checkpoints/last/ckpt-*.index")):
                if process.poll() is not None:
                    raise InputError(_describe_failure(command, process.returncode, log.read_text()))
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        finally:
            process.kill()
            process.wait()


def _describe_failure(command: Sequence[str], code: int, output: str) -> str:
    return f"{' '.join(command[1:])} ended with code {code}; run it by itself to see why\n{output[-2000:]}"


def main() -> None:
    """Runs the benchmark with the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--compare", type=Path)
    given = parser.parse_args()
    result = bench_startup(given.overrides, given.rounds)
    show_result(result, given.json, given.compare)


if __name__ == "__main__":
    with clean_errors():
        main()
