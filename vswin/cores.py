"""How many threads can work at once here."""

import os


def count_cores() -> int:
    """Counts the cores that this process may use, which a cluster's scheduler or `taskset` can limit."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
