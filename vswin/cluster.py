"""The worker processes that compute one model together: how they are found, and how they exchange values.

`TF_CONFIG`, or the variables that Slurm gives each task of a step, describe them. TensorFlow's own Slurm resolver is
not used: it needs GPUs, and sorts n10 before n9, so that tasks get each other's addresses. TensorFlow is imported only
when values are computed; `vswin.runtime` makes the strategy.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vswin.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

_FIRST_PORT, _NUM_PORTS = 15_000, 15_000
# A host name with or without ranges in brackets; commas inside brackets do not end it.
_HOSTS = r"(?:[^,\[\]]|\[[^\[\]]*\])+"
_LONGEST_TEXT = 4096
# Errors that TensorFlow raises in the other workers when one is gone; its version and the moment decide which.
_LOST = ("UnavailableError", "AbortedError", "CancelledError", "DeadlineExceededError", "InternalError")


def count_cores() -> int:
    """Counts the cores that this process may use; a scheduler or `taskset` can limit them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Cluster:
    """The workers of a job, and which of them this process is."""

    addresses: tuple[str, ...]  # host:port by rank; the first is the chief, which writes the files
    rank: int
    local_rank: int  # among the workers on this host
    num_local: int
    origin: str  # where this description comes from, for messages

    @property
    def tf_config(self) -> str:
        """Writes this cluster as a value of `TF_CONFIG`."""
        return json.dumps({"cluster": {"worker": self.addresses}, "task": {"type": "worker", "index": self.rank}})


def find_cluster(environment: Mapping[str, str] = os.environ) -> Cluster | None:
    """Finds the cluster that this process is a worker of; None if it works by itself.

    Raises:
        InputError: if the variables contradict each other or describe something that vswin does not support.
    """
    if environment.get("TF_CONFIG"):
        return _from_tf_config(environment["TF_CONFIG"])
    # Variables of the step, not of the job: a batch script that calls Python without srun is one process.
    if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1 and "SLURM_PROCID" in environment:
        return _from_slurm(environment)
    return None


def expand_hosts(hosts: str) -> list[str]:
    """Expands Slurm's notation of host names, e.g. "gpu[08-10,12],login1" to gpu08, gpu09, gpu10, gpu12 and login1."""
    if not re.fullmatch(rf"{_HOSTS}(?:,{_HOSTS})*", hosts):
        raise InputError(f"SLURM_STEP_NODELIST={hosts!r} is no list of hosts")
    return [name for part in re.findall(_HOSTS, hosts) for name in _expand_brackets(part)]


def _expand_brackets(part: str) -> Iterator[str]:
    """Expands the first bracket of a name, then the brackets after it."""
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


def expand_counts(counts: str) -> list[int]:
    """Expands Slurm's notation of tasks per node, e.g. "2(x3),1" to [2, 2, 2, 1]."""
    expanded = []
    for part in counts.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        if match is None:
            raise InputError(f"SLURM_STEP_TASKS_PER_NODE={counts!r} is no list of numbers")
        expanded += [int(match[1])] * int(match[2] or 1)
    return expanded


def share_gpus(gpus: Sequence[Any], cluster: Cluster, num_on_host: int | None) -> Sequence[Any]:
    """Picks this worker's GPUs, unless it sees fewer than the step has on this host, so that it already has its own."""
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
        nodes, tasks_per_node = environment["SLURM_STEP_NODELIST"], environment["SLURM_STEP_TASKS_PER_NODE"]
    except (KeyError, ValueError) as error:
        raise InputError(f"this is a Slurm step of several tasks, but its variables are incomplete: {error}") from None
    hosts, counts = expand_hosts(nodes), expand_counts(tasks_per_node)
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


class Workers:
    """Knows this process among the workers of its run, and exchanges values; a single process is its own chief.

    All workers must call the methods that communicate in the same order.
    """

    def __init__(self, strategy: "tf.distribute.Strategy") -> None:
        self._strategy = strategy
        resolver = strategy.cluster_resolver
        self.addresses: tuple[str, ...] = ()
        self.count, self.rank = 1, 0
        if resolver is not None and resolver.cluster_spec():
            spec = resolver.cluster_spec()
            self.addresses = tuple(address for job in sorted(spec.jobs) for address in spec.job_tasks(job))
            self.count = len(self.addresses)
            is_worker_beside_chief = resolver.task_type == "worker" and "chief" in spec.jobs
            self.rank = resolver.task_id + is_worker_beside_chief

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the files of the run."""
        return self.rank == 0

    def chief_says(self, say: Callable[[], str]) -> str:
        """Gives every worker the text of the chief, up to 4,096 bytes of UTF-8; only the chief calls `say`."""
        text = say() if self.is_chief else ""
        if self.count == 1:
            return text
        codes = np.zeros(_LONGEST_TEXT, np.int32)
        encoded = np.frombuffer(text.encode(), np.uint8)
        codes[: len(encoded)] = encoded
        return bytes(self._sum(codes).astype(np.uint8)).rstrip(b"\0").decode()

    def sum(self, value: int) -> int:
        """Adds up a number >= 0 over all workers."""
        return int(self.gather(np.array([value], np.int32)).sum())

    def gather(self, values: np.ndarray) -> np.ndarray:
        """Concatenates the rows of all workers by rank, int32 or float32: [n, ...] -> [workers * n, ...]."""
        if self.count == 1:
            return values
        # The bits of any dtype survive when they are added to zeros as integers.
        rows = np.zeros((self.count, *values.shape), np.int32)
        rows[self.rank] = values.view(np.int32)
        return self._sum(rows).view(values.dtype).reshape(-1, *values.shape[1:])  # [workers*n, ...]

    def check_same(self, value: int, what: str) -> None:
        """Raises an `InputError` with the message `what` unless the number is the same on all workers."""
        if len(np.unique(self.gather(np.array([value], np.int32)))) > 1:
            raise InputError(what)

    def wait(self) -> None:
        """Waits until all workers have called this method."""
        self.sum(0)

    def own_file(self, path: Path) -> Path:
        """Gives each worker its own file: `train.log` for the chief, `train.worker1.log` for worker 1."""
        return path if self.is_chief else path.with_name(f"{path.stem}.worker{self.rank}{path.suffix}")

    @contextmanager
    def errors_explained(self) -> Iterator[None]:
        """Adds the worker to the message of every `InputError`, and explains errors about a lost worker."""
        try:
            yield
        except Exception as error:
            loss = self.describe_loss(error)
            if self.count == 1 or not (loss or isinstance(error, InputError)):
                raise
            what = f"{loss}. Start the job again" if loss else str(error)
            raise InputError(f"worker {self.rank} ({self.addresses[self.rank]}): {what}") from error

    def describe_loss(self, error: BaseException) -> str | None:
        """Names the lost or unreachable worker that an error is about; None if it is about none."""
        if self.count == 1 or type(error).__name__ not in _LOST:
            return None
        ranks = sorted({int(rank) for rank in re.findall(r"task:(\d+)", str(error))} - {self.rank})
        if not ranks and "CoordinationService/" in str(error):
            # The chief runs the service that receives the heartbeats of all workers.
            return (
                f"the chief, worker 0 ({self.addresses[0]}), cannot be reached: it has ended, it is stopped, or the "
                "network between the two is down"
            )
        lost = " and ".join(f"worker {rank} ({self.addresses[rank]})" for rank in ranks) or "another worker"
        lost += f" {'have' if len(ranks) > 1 else 'has'} gone or cannot be reached"
        if len(ranks) == self.count - 1:
            lost += ", or this machine has lost its network"
        return f"{lost}; the last words of a lost worker are on its own terminal and in its log"

    def _sum(self, values: np.ndarray) -> np.ndarray:
        """Adds up int32 arrays over all workers; the first device of each worker contributes its array."""
        import tensorflow as tf

        size = self._strategy.num_replicas_in_sync // self.count

        def share(context: "tf.distribute.experimental.ValueContext") -> "tf.Tensor":
            is_first = context.replica_id_in_sync_group % size == 0
            return tf.constant(values if is_first else np.zeros_like(values))

        shares = self._strategy.experimental_distribute_values_from_function(share)
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, shares, axis=None).numpy()
