"""What a figure was measured on; part of every result."""

import importlib.metadata
import os
import platform
from datetime import datetime, timezone
from pathlib import Path

import psutil

from vswin import __version__

_INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16")


def describe_machine() -> dict[str, object]:
    """Describes this machine and what is installed on it, as values JSON knows.

    Returns:
        `cpu` (its name), `instructions` (those that matrix products gain from), `cores` (physical; None if unknown),
        `threads`, `memory_gb`, `load` (average of the last minute, in running threads), `gpus` (their names),
        `python`, `tensorflow`, `vswin` (versions), `system` and `date`.
    """
    name, flags = _read_cpu()
    return {
        "cpu": name,
        "instructions": [instruction for instruction in _INSTRUCTIONS if instruction in flags],
        "cores": psutil.cpu_count(logical=False),
        "threads": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load": round(os.getloadavg()[0], 2),
        "gpus": _list_gpus(),
        "python": platform.python_version(),
        "tensorflow": importlib.metadata.version("tensorflow"),
        "vswin": __version__,
        "system": platform.platform(terse=True),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def summarise(machine: dict[str, object]) -> str:
    """Writes a description on one line."""
    gpus = machine["gpus"]
    devices = f", {', '.join(map(str, gpus))}" if isinstance(gpus, list) and gpus else ""
    return (
        f"{machine['cpu']}, {machine['threads']} threads, {machine['memory_gb']} GB{devices}, load {machine['load']}; "
        f"Python {machine['python']}, TensorFlow {machine['tensorflow']}, vswin {machine['vswin']}"
    )


def _read_cpu() -> tuple[str, set[str]]:
    """Reads the name of the processor and its instruction sets, where the system tells them."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return platform.processor() or platform.machine(), set()
    pairs = (line.partition(":") for line in path.read_text().splitlines())
    fields = {key.strip(): value.strip() for key, _, value in pairs}
    return fields.get("model name", platform.machine()), set(fields.get("flags", "").split())


def _list_gpus() -> list[str]:
    import tensorflow as tf

    details = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    return [detail.get("device_name", "GPU") for detail in details]
