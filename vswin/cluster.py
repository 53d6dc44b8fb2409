"""Which processes make up a job: from `TF_CONFIG`, or from the variables that Slurm gives each task of a step.

Nothing here needs TensorFlow; `vswin.runtime` makes the strategy. TensorFlow's own Slurm resolver is not used: it
sorts n10 before n9, by which tasks get each other's addresses, and needs GPUs.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vswin.errors import InputError

_FIRST_PORT, _NUM_PORTS = 15_000, 15_000
# A name with or without ranges in brackets, in which commas do not end it.
_HOSTS = r"(?:[^,\[\]]|\[[^\[\]]*\])+"


@dataclass(frozen=True)
class Cluster:
    """Names the workers of a job and this one among them.

    Args:
        addresses: `host:port` of every worker, by rank; the first is the chief, which writes the files.
        rank: this worker's place among them.
        local_rank: its place among the workers on its host.
        num_local: workers on its host.
        origin: where this comes from, for messages.
    """

    addresses: tuple[str, ...]
    rank: int
    local_rank: int
    num_local: int
    origin: str

    @property
    def tf_config(self) -> str:
        """Writes the value of `TF_CONFIG` that says the same."""
        return json.dumps({"cluster": {"worker": self.addresses}, "task": {"type": "worker", "index": self.rank}})


def find_cluster(environment: Mapping[str, str] = os.environ) -> Cluster | None:
    """Finds out whether this process is one of several workers.

    Args:
        environment: the environment variables.

    Returns:
        The cluster; None for a process that works by itself.

    Raises:
        InputError: if the variables contradict each other or describe what vswin does not do.
    """
    if environment.get("TF_CONFIG"):
        return _from_tf_config(environment["TF_CONFIG"])
    # The variables of the step, not of the job: a batch script that calls Python without srun is one process.
    if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1 and "SLURM_PROCID" in environment:
        return _from_slurm(environment)
    return None


def expand_hosts(hosts: str) -> list[str]:
    """Expands Slurm's notation of host names.

    Args:
        hosts: e.g. "gpu[08-10,12],login1".

    Returns:
        E.g. ["gpu08", "gpu09", "gpu10", "gpu12", "login1"].

    Raises:
        InputError: if that is no such notation.
    """
    if not re.fullmatch(rf"{_HOSTS}(?:,{_HOSTS})*", hosts):
        raise InputError(f"SLURM_STEP_NODELIST={hosts!r} is no list of hosts")
    return [name for part in re.findall(_HOSTS, hosts) for name in _expand_brackets(part)]


def expand_counts(counts: str) -> list[int]:
    """Expands Slurm's notation of tasks per node.

    Args:
        counts: e.g. "2(x3),1".

    Returns:
        E.g. [2, 2, 2, 1].

    Raises:
        InputError: if that is no such notation.
    """
    expanded = []
    for part in counts.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        if match is None:
            raise InputError(f"SLURM_STEP_TASKS_PER_NODE={counts!r} is no list of numbers")
        expanded += [int(match[1])] * int(match[2] or 1)
    return expanded


def share_gpus(gpus: Sequence[Any], cluster: Cluster, num_on_host: int | None) -> Sequence[Any]:
    """Picks this worker's GPUs where the workers of a host see them all.

    Args:
        gpus: those that this process sees, in order.
        cluster: the workers.
        num_on_host: how many the step has on this host; None if nobody says. A worker that sees fewer has been
            given its own already.

    Returns:
        A part of `gpus`.

    Raises:
        InputError: if the workers cannot share them equally.
    """
    if cluster.num_local == 1 or (num_on_host is not None and len(gpus) < num_on_host):
        return gpus
    if len(gpus) % cluster.num_local:
        raise InputError(
            f"{cluster.num_local} tasks on this host cannot share its {len(gpus)} GPUs equally; start one task per "
            "GPU or per host (srun --ntasks-per-node)"
        )
    size = len(gpus) // cluster.num_local
    return gpus[cluster.local_rank * size : (cluster.local_rank + 1) * size]


def count_slurm_gpus(environment: Mapping[str, str] = os.environ) -> int | None:
    """Counts the GPUs that a Slurm step has on this host; None if Slurm does not say."""
    for name in ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS"):
        if environment.get(name):
            return len(environment[name].split(","))
    on_node = environment.get("SLURM_GPUS_ON_NODE", "")
    return int(on_node) if on_node.isdecimal() else None


def _from_tf_config(text: str) -> Cluster | None:
    try:
        config = json.loads(text)
        jobs, task = config["cluster"], config["task"]
        unknown = set(jobs) - {"chief", "worker"}
        addresses = [*jobs.get("chief", []), *jobs.get("worker", [])]
        rank = int(task["index"]) + (len(jobs.get("chief", [])) if task["type"] == "worker" else 0)
        hosts = [address.rpartition(":")[0] for address in addresses]
        host = hosts[rank]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(
            f"TF_CONFIG={text} does not describe a worker ({type(error).__name__}: {error}); expected "
            '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
        ) from None
    if unknown:
        raise InputError(f"TF_CONFIG names {', '.join(sorted(unknown))}; vswin has a chief and workers only")
    if len(addresses) == 1:
        return None
    return Cluster(tuple(addresses), rank, hosts[:rank].count(host), hosts.count(host), "TF_CONFIG")


def _from_slurm(environment: Mapping[str, str]) -> Cluster:
    try:
        rank, num_tasks = int(environment["SLURM_PROCID"]), int(environment["SLURM_STEP_NUM_TASKS"])
        hosts = expand_hosts(environment["SLURM_STEP_NODELIST"])
        counts = expand_counts(environment["SLURM_STEP_TASKS_PER_NODE"])
    except (KeyError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"this is a Slurm step of several tasks, but its variables are incomplete: {error}") from None
    if len(hosts) != len(counts) or sum(counts) != num_tasks or not 0 <= rank < num_tasks:
        raise InputError(
            f"Slurm's variables contradict each other: {num_tasks} tasks, SLURM_PROCID={rank}, {len(hosts)} hosts "
            f"with {counts} tasks"
        )
    job = int(environment.get("SLURM_JOB_ID", 0)) + int(environment.get("SLURM_STEP_ID", 0))
    port = int(environment.get("VSWIN_PORT", _FIRST_PORT + job % _NUM_PORTS))
    places = [(host, local_rank) for host, count in zip(hosts, counts, strict=True) for local_rank in range(count)]
    host, local_rank = places[rank]
    if int(environment.get("SLURM_LOCALID", local_rank)) != local_rank:
        raise InputError(
            f"task {rank} has the number {environment['SLURM_LOCALID']} on its host, where {local_rank} is expected: "
            "start the tasks in blocks (srun --distribution=block)"
        )
    addresses = tuple(f"{name}:{port + number}" for name, number in places)
    return Cluster(addresses, rank, local_rank, counts[hosts.index(host)], "Slurm")


def _expand_brackets(part: str) -> Iterator[str]:
    """Expands the first bracket of a name and, if there are more, those behind it."""
    match = re.fullmatch(r"([^\[\]]*)\[([^\]]*)\](.*)", part)
    if match is None:
        yield part
        return
    prefix, ranges, suffix = match.groups()
    for item in ranges.split(","):
        first, _, last = item.partition("-")
        if not (first.isdecimal() and (last or first).isdecimal()):
            raise InputError(f"SLURM_STEP_NODELIST: {part!r} is no list of hosts")
        for number in range(int(first), int(last or first) + 1):
            yield from _expand_brackets(f"{prefix}{number:0{len(first)}d}{suffix}")
