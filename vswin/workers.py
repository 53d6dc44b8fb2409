"""The processes that compute one model together, and what they have to tell each other."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tensorflow as tf

from vswin.errors import InputError

_LONGEST_TEXT = 4096
# What TensorFlow raises in the others when a worker is gone, by version and moment.
_LOST = (
    *(tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError),
    *(tf.errors.DeadlineExceededError, tf.errors.InternalError),
)


class Workers:
    """Tells this process from the others of its run; where there are no others, it is the chief of itself.

    Every method that takes part in a collective must be called by all workers in the same order.

    Args:
        strategy: what they were joined by.
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
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
        """Gives every worker what the chief says.

        Args:
            say: called on the chief alone; up to 4,096 bytes of UTF-8.
        """
        text = say() if self.is_chief else ""
        if self.count == 1:
            return text
        codes = np.zeros(_LONGEST_TEXT, np.int32)
        encoded = np.frombuffer(text.encode(), np.uint8)
        codes[: len(encoded)] = encoded
        return bytes(self._sum(codes).astype(np.uint8)).rstrip(b"\0").decode()

    def sum(self, value: int) -> int:
        """Adds up a number, >= 0, over all workers."""
        return int(self._sum(np.array([value], np.int32))[0]) if self.count > 1 else value

    def gather(self, values: np.ndarray) -> np.ndarray:
        """Puts the rows of all workers one below the other, by rank.

        Args:
            values: int32 or float32 [n, ...], of the same shape on all workers.

        Returns:
            The same bits, [workers * n, ...].
        """
        if self.count == 1:
            return values
        # Bits among zeros survive a sum of integers, whatever they stand for.
        rows = np.zeros((self.count, *values.shape), np.int32)
        rows[self.rank] = values.view(np.int32)
        return self._sum(rows).view(values.dtype).reshape(-1, *values.shape[1:])  # [workers*n, ...]

    def check_same(self, value: int, what: str) -> None:
        """Makes sure that a number is the same on all workers.

        Raises:
            InputError: if it is not.
        """
        values = np.zeros(self.count, np.int32)
        values[self.rank] = value
        if self.count > 1 and len(set(self._sum(values).tolist())) > 1:
            raise InputError(what)

    def wait(self) -> None:
        """Waits until all workers have come here."""
        self.sum(0)

    def own_file(self, path: Path) -> Path:
        """Gives each worker a file of its own: `train.log` is the chief's, `train.worker1.log` that of worker 1."""
        return path if self.is_chief else path.with_name(f"{path.stem}.worker{self.rank}{path.suffix}")

    @contextmanager
    def errors_explained(self) -> Iterator[None]:
        """Says with every error of the user's which worker it is of, and of a lost worker that it is lost.

        Raises:
            InputError: if the block did, or a collective with the other workers broke off.
        """
        try:
            yield
        except (InputError, *_LOST) as error:
            if self.count == 1:
                raise
            loss = self.describe_loss(error)
            what = f"{loss}. Start the job again" if loss else str(error)
            raise InputError(f"worker {self.rank} ({self.addresses[self.rank]}): {what}") from error

    def describe_loss(self, error: BaseException) -> str | None:
        """Says which other worker an error is about, that is gone or cannot be reached; None if it is about none."""
        if self.count == 1 or not isinstance(error, _LOST):
            return None
        ranks = sorted({int(rank) for rank in re.findall(r"task:(\d+)", str(error))} - {self.rank})
        if not ranks and "CoordinationService/" in str(error):
            # The service, which every worker sends its heartbeats to, runs in the chief.
            return (
                f"the chief, worker 0 ({self.addresses[0]}), cannot be reached: it has ended, it is stopped, or the "
                "network between the two is down"
            )
        lost = " and ".join(f"worker {rank} ({self.addresses[rank]})" for rank in ranks) or "another worker"
        return f"{lost} has gone or cannot be reached; its own last words are on its terminal and in its log"

    def _sum(self, values: np.ndarray) -> np.ndarray:
        """Adds up int32 arrays over all workers; the first device of each has its share."""
        size = self._strategy.num_replicas_in_sync // self.count

        def share(context: tf.distribute.experimental.ValueContext) -> tf.Tensor:
            is_first = context.replica_id_in_sync_group % size == 0
            return tf.constant(values if is_first else np.zeros_like(values))

        shares = self._strategy.experimental_distribute_values_from_function(share)
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, shares, axis=None).numpy()
