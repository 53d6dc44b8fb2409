"""Runs commands one after another, as a reader does: `python follow.py < commands.json`.

Most commands with small models take less time than importing TensorFlow. So this process imports it once, without using
it, and runs `python ...` and `vswin ...` in forks. Other commands, and those that need a shell, run in a shell.
"""

import gc
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import time
from pathlib import Path

import vswin  # noqa: F401 (first, as it decides which Keras other libraries get from TensorFlow)

# isort: split

import av  # noqa: F401
import hydra  # noqa: F401
import matplotlib.figure  # noqa: F401
import tensorflow as tf  # noqa: F401
import tf_keras  # noqa: F401


def main() -> None:
    """Runs the commands of standard input; prints exit code, output and seconds of each as a line of JSON."""
    gc.freeze()  # otherwise each fork would copy all memory when it ends
    for command in json.load(sys.stdin):
        start = time.monotonic()
        command = command.replace("outputs/<run>", _newest_run())
        words = None if re.search(r"[<>|&;$~]", command) else shlex.split(command)
        with Path("output.txt").open("wb+") as output:
            if words and words[0] in ("python", "vswin"):
                process = os.fork()
                if process == 0:
                    _become(words, output.fileno())
                    return
                code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            else:
                code = subprocess.run(["bash", "-c", command], stdout=output, stderr=output).returncode
            output.seek(0)
            text = output.read().decode()
        seconds = time.monotonic() - start
        print(json.dumps({"command": command, "code": code, "output": text, "seconds": seconds}), flush=True)


def _newest_run() -> str:
    """Returns the folder that a reader would take for `outputs/<run>`: the last run that was trained."""
    runs = sorted(Path("outputs").glob("*/config.yaml"), key=lambda path: path.stat().st_mtime_ns)
    return str(runs[-1].parent) if runs else "outputs/none"


def _become(words: list[str], output: int) -> None:
    """Runs `python ...` or `vswin ...` in this process."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.orig_argv = [sys.executable, *words[1:]]
    if words[0] == "vswin":
        sys.orig_argv.insert(1, str(Path(sys.executable).with_name("vswin")))
        sys.argv = words
        from vswin.cli import main as run_vswin

        run_vswin()
    elif words[1] == "-m":
        sys.argv = words[2:]
        runpy.run_module(words[2], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words[1:]
        runpy.run_path(words[1], run_name="__main__")


if __name__ == "__main__":
    main()
