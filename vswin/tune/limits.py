"""How much memory a process may still take: of the machine, and of the container or job it is in."""

from pathlib import Path

import psutil

# What is left to the rest of the machine, and to the input pipeline of a real run.
_SHARE = 0.9
_CGROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def free_gb() -> float:
    """Gives nine tenths of the memory that is free, in GB, also counting the limits of the control groups."""
    return _SHARE * min([psutil.virtual_memory().available, *cgroup_free(_CGROUPS, _OWN)]) / 1e9


def cgroup_free(root: Path, own: Path) -> list[int]:
    """Reads what the control groups of this process leave it, as containers and Slurm set them.

    Args:
        root: where the groups are mounted.
        own: the file that names those of this process.

    Returns:
        Bytes for each group with a limit; file caches, which give way, count as free.
    """
    if not own.is_file():
        return []
    free = []
    for line in own.read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            base, names = root, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base = root / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        path = base / group.lstrip("/")
        # Within a container the path may be that outside of it; its own group is then the root.
        folders = [folder for folder in (path, *path.parents) if folder == base or base in folder.parents]
        free += [left for folder in folders if (left := _read_left(folder, *names)) is not None]
    return free


def _read_left(folder: Path, limit_name: str, used_name: str, cache_name: str) -> int | None:
    """Reads what one group leaves; None where it has no limit."""
    try:
        limit = (folder / limit_name).read_text().strip()
        used = int((folder / used_name).read_text())
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except OSError:
        return None
    if limit == "max":
        return None
    return max(0, int(limit) - used + int(statistics.get(cache_name, 0)))
