"""The machine of a run: precision, devices, output folder and signals."""

import os
import platform
import signal
import socket
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import tensorflow as tf
import tf_keras as keras

from vswin.cluster import Cluster, count_slurm_gpus, find_cluster, share_gpus
from vswin.console import console as console
from vswin.console import count_of
from vswin.console import logger as logger
from vswin.console import program as program
from vswin.console import start_log as start_log
from vswin.errors import InputError

OUTPUTS = Path("outputs")

_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


def set_precision(precision: str) -> None:
    """Sets the Keras policy: weights stay float32, the layers compute in float32, bfloat16 or float16."""
    keras.mixed_precision.set_global_policy(_POLICIES[precision])


def make_strategy(name: str, is_alone: bool = False) -> tf.distribute.Strategy:
    """Makes the distribution strategy, in whose scope the model, its optimizer and their trainer are created.

    `one_device` is the first GPU or else the CPU; `mirrored`, every GPU or else every logical CPU; `multi_worker`, the
    devices of all processes of a job, see `vswin.cluster`; `auto`, whichever of them uses all. `is_alone` leaves other
    processes aside; `multi_worker` is then an `InputError`.
    """
    if is_alone and name == "multi_worker":
        raise InputError("runtime.strategy=multi_worker: predictions take one machine; `vswin evaluate` takes several")
    cluster = find_cluster() if name in ("auto", "multi_worker") and not is_alone else None
    if cluster is not None:
        return _join_workers(cluster)
    if name == "multi_worker":
        raise InputError(
            "runtime.strategy=multi_worker: this process is no part of a job of several; start it with srun, or "
            "describe the workers in TF_CONFIG (docs/cluster/README.md)"
        )
    gpus = [device.name for device in tf.config.list_logical_devices("GPU")]
    devices = gpus or [device.name for device in tf.config.list_logical_devices("CPU")]
    if name == "mirrored" or (name == "auto" and len(gpus) > 1):
        return tf.distribute.MirroredStrategy(devices)
    return tf.distribute.OneDeviceStrategy(devices[0])


def _join_workers(cluster: Cluster) -> tf.distribute.Strategy:
    """Joins the other workers of a job; waits until all are there."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        tf.config.set_visible_devices(share_gpus(gpus, cluster, count_slurm_gpus()), "GPU")
    logger.info(f"worker {cluster.rank} of {len(cluster.addresses)} ({cluster.origin}), waiting for the others")
    os.environ["TF_CONFIG"] = cluster.tf_config
    communication = tf.distribute.experimental.CommunicationImplementation
    implementation = communication.NCCL if gpus else communication.RING
    return tf.distribute.MultiWorkerMirroredStrategy(
        communication_options=tf.distribute.experimental.CommunicationOptions(implementation=implementation)
    )


def describe_devices(strategy: tf.distribute.Strategy) -> str:
    """Names the devices of a strategy, e.g. "CPU (x86_64)", "2 GPUs" or "4 workers, each with 8 GPUs"."""
    devices, replicas = strategy.extended.worker_devices, strategy.num_replicas_in_sync
    count = len(devices)
    cpus = f"{count} logical CPUs" if count > 1 else "CPU"
    local = count_of(count, "GPU") if "GPU" in devices[0] else f"{cpus} ({platform.machine()})"
    return f"{replicas // count} workers, each with {local}" if replicas > count else local


def default_output_dir(model: str, dataset: str) -> Path:
    """Names a folder that does not exist yet: `outputs/<date>_<time>_<model>_<dataset>`."""
    path = OUTPUTS / f"{datetime.now():%Y-%m-%d_%H%M%S}_{model}_{dataset}"
    # Two runs that start in the same second, as in a sweep, must not share a folder.
    return path.with_name(f"{path.name}_{os.getpid()}") if path.exists() else path


def format_seconds(seconds: float) -> str:
    """Writes a duration, e.g. "45 s", "3 min 20 s" or "2 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def exit_at_once(number: int) -> None:
    """Ends the process as a signal of this number does, and shows the cursor of the terminal again."""
    if os.isatty(1):
        os.write(1, b"\x1b[?25h\n")
    os._exit(128 + number)


@contextmanager
def signals_taken(numbers: Collection[int], note: Callable[[int], None]) -> Iterator[None]:
    """Calls `note` with the number of each signal at once, even while the main thread is inside a step.

    Signals that the process was told to ignore stay ignored; `note` runs in a thread of its own.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    receiver, sender = socket.socketpair()
    sender.setblocking(False)

    def watch() -> None:
        while received := receiver.recv(1):
            if received[0] in numbers:
                note(received[0])

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    taken = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    # Python writes to the descriptor only for signals that have a handler.
    handlers = {number: signal.signal(number, lambda number, frame: None) for number in taken}
    previous = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        sender.close()
        watcher.join()
        receiver.close()
