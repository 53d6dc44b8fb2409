"""What a session of a run was started with: versions, machine, revision of the code, command line."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vswin.atomic import replacing
from vswin.config import ROOT
from vswin.runs.machine import describe_machine

ENVIRONMENT_NAME = "environment.json"
_GIT_SECONDS = 10


def describe_session(command: Sequence[str] = ()) -> dict[str, Any]:
    """Describes what is about to run, as values JSON knows.

    Args:
        command: The command line, as in `sys.orig_argv`; empty if Python code started it.

    Returns:
        What `describe_machine` gives without the load, `date` being the time of the start; `tf_keras`, `numpy` and
        `opencv` (versions), `command` (None if there is none) and `git`, see `describe_checkout`.
    """
    machine = describe_machine()
    del machine["load"]
    return {
        "command": shlex.join(plain_command(command)) or None,
        **machine,
        "tf_keras": importlib.metadata.version("tf_keras"),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "git": describe_checkout(ROOT),
    }


def record_session(folder: Path, command: Sequence[str] = ()) -> None:
    """Adds this session to those of `environment.json`, of which a run that was resumed has several.

    Args:
        folder: That of the run.
        command: See `describe_session`.

    Raises:
        OSError: If the file cannot be written.
    """
    path = folder / ENVIRONMENT_NAME
    sessions = [*read_sessions(folder), describe_session(command)]
    with replacing(path) as partial:
        # An argument may hold bytes that are no UTF-8; JSON spells them out.
        partial.write_text(json.dumps({"sessions": sessions}, indent=2) + "\n", encoding="utf-8")


def read_sessions(folder: Path) -> list[dict[str, Any]]:
    """Reads the sessions of a run; empty if they are not known, for they are no more than a help."""
    try:
        sessions = json.loads((folder / ENVIRONMENT_NAME).read_text(encoding="utf-8"))["sessions"]
        return [session for session in sessions if isinstance(session, dict)]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return []


def plain_command(command: Sequence[str]) -> list[str]:
    """Gives a command line as it was typed.

    Args:
        command: As in `sys.orig_argv`.
    """
    program, *arguments = command or [""]
    if arguments and shutil.which(Path(arguments[0]).name) == arguments[0]:
        # An installed command: Python and where it lies are the shell's affair.
        program, *arguments = Path(arguments[0]).name, *arguments[1:]
    return [program, *arguments] if command else []


def describe_checkout(root: Path) -> dict[str, Any] | None:
    """Finds out which revision of the code this is.

    Args:
        root: The folder of a checkout, or another one.

    Returns:
        `revision` (its hash) and `is_changed` (whether files that git knows differ from it); None where there is no
        checkout or no git.
    """
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        return None
    # These would speak of another repository.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}

    def ask(*words: str) -> str:
        # S603: fixed words, about our own checkout.
        answer = subprocess.run(  # noqa: S603
            [git, "--no-optional-locks", "-C", str(root), *words],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=_GIT_SECONDS,
        )
        return answer.stdout.strip()

    try:
        revision = ask("rev-parse", "HEAD")
        return {"revision": revision, "is_changed": bool(ask("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
