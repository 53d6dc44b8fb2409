"""Records the environment of each session of a run: machine, versions, revision of the code, command line."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil

from vswin import __version__
from vswin.atomic import replacing
from vswin.config.load import ROOT

ENVIRONMENT_NAME = "environment.json"
# Instruction sets that speed up matrix products.
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16")
_GIT_SECONDS = 10


def describe_machine() -> dict[str, Any]:
    """Describes this machine and the installed versions, as JSON values."""
    import tensorflow as tf

    # The name of the processor and its instruction sets, if the system tells them.
    cpu = Path("/proc/cpuinfo")
    pairs = (line.partition(":") for line in cpu.read_text().splitlines()) if cpu.is_file() else ()
    fields = {key.strip(): value.strip() for key, _, value in pairs}
    flags = fields.get("flags", "").split()
    gpus = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    return {
        "cpu": fields.get("model name") or platform.processor() or platform.machine(),
        "instructions": [instruction for instruction in _INSTRUCTIONS if instruction in flags],
        "cores": psutil.cpu_count(logical=False),  # None if unknown
        "threads": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load": round(os.getloadavg()[0], 2),
        "gpus": [details.get("device_name", "GPU") for details in gpus],
        "python": platform.python_version(),
        "tensorflow": importlib.metadata.version("tensorflow"),
        "vswin": __version__,
        "system": platform.platform(terse=True),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def summarise(machine: Mapping[str, Any]) -> str:
    """Formats the result of `describe_machine` on one line."""
    devices = "".join(f", {gpu}" for gpu in machine["gpus"])
    return (
        f"{machine['cpu']}, {machine['threads']} threads, {machine['memory_gb']} GB{devices}, load {machine['load']}; "
        f"Python {machine['python']}, TensorFlow {machine['tensorflow']}, vswin {machine['vswin']}"
    )


def describe_session(command: Sequence[str] = ()) -> dict[str, Any]:
    """Describes a session that is about to run, as JSON values; for `command` see `plain_command`."""
    return {
        "command": shlex.join(plain_command(command)) or None,
        **{key: value for key, value in describe_machine().items() if key != "load"},
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "tf_keras": importlib.metadata.version("tf_keras"),
        "git": describe_checkout(ROOT),
    }


def record_session(folder: Path, command: Sequence[str] = (), devices: str = "") -> None:
    """Adds this session and its devices, in words, to `environment.json`; a resumed run has several sessions."""
    sessions = [*read_sessions(folder), describe_session(command) | {"devices": devices}]
    with replacing(folder / ENVIRONMENT_NAME) as partial:
        # An argument may contain bytes that are not UTF-8; JSON escapes them.
        partial.write_text(json.dumps({"sessions": sessions}, indent=2) + "\n", encoding="utf-8")


def read_sessions(folder: Path) -> list[dict[str, Any]]:
    """Reads the sessions of a run; returns none if the file cannot be read, because they are only informative."""
    try:
        sessions = json.loads((folder / ENVIRONMENT_NAME).read_text(encoding="utf-8"))["sessions"]
        return [session for session in sessions if isinstance(session, dict)]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return []


def plain_command(command: Sequence[str]) -> list[str]:
    """Returns a command line, given as in `sys.orig_argv`, as the user typed it; empty if Python code started it."""
    if len(command) > 1 and shutil.which(Path(command[1]).name) == command[1]:
        # The user typed an installed command without Python and without its folder.
        return [Path(command[1]).name, *command[2:]]
    return list(command)


def describe_checkout(root: Path) -> dict[str, Any] | None:
    """Finds the revision of a checkout, and whether files that git tracks have changed; None if unknown."""
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        return None
    # These variables would make git describe another repository.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    words = ("describe", "--always", "--exclude=*", "--abbrev=40", "--dirty")
    try:
        # S603: fixed words, about our own checkout.
        done = subprocess.run(  # noqa: S603
            [git, "--no-optional-locks", "-C", str(root), *words],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=_GIT_SECONDS,
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    revision, _, change = done.stdout.strip().partition("-")
    return {"revision": revision, "is_changed": change == "dirty"}
