"""A run that the machine ends, a disk or its memory: what is saved, and how the run goes on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf

from vswin.errors import InputError, disk_fault, is_out_of_memory
from vswin.schema import TrainConfig
from vswin.training.checkpoints import Checkpoints
from vswin.training.memory import estimate_run
from vswin.training.run_folder import STATES
from vswin.weights.files import best_weights
from vswin.wording import count_of


@contextmanager
def faults_explained(config: TrainConfig, checkpoints: Checkpoints, folder: Path, go_on: str) -> Iterator[None]:
    """Turns the errors of disks, memory and other workers, as libraries report them, into what a user can act on.

    Args:
        config: the run.
        checkpoints: knows what is saved.
        folder: the run's folder.
        go_on: the command that continues the run.

    Raises:
        InputError: if a disk is full, read-only or broken, the run's folder or another worker is gone, or memory was
            not enough.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        fault, place = disk_fault(error), checkpoints.place
        saved = f"the state after {place} is saved and whole" if place else "no state is saved yet"
        if not folder.is_dir():
            kept = f"The state after {place} is whole in it" if place else "No state was saved in it yet"
            raise InputError(
                f"the folder of the run, {folder}, was moved or removed while it went on. {kept}: bring it back, or "
                f"name its new place with output_dir=, and go on with\n  {go_on}\n  If it is gone, start again"
            ) from error
        if fault is not None:
            raise InputError(
                f"writing into {folder} failed: {fault.reason}; {saved}. {fault.way_out.capitalize()}, then go on "
                f"with\n  {go_on}"
            ) from error
        if is_out_of_memory(error):
            setting = _less_memory(config, checkpoints.trainer.distribute_strategy)
            way_on = (
                f"Go on with\n  {go_on} {setting}" if setting else "No setting is left that leaves the step as it is"
            )
            raise InputError(f"{_explain_memory(config)}. {saved.capitalize()}. {way_on}") from error
        if loss := checkpoints.workers.describe_loss(error):
            raise InputError(
                f"{loss}. {saved.capitalize()}. Start the job again, each worker with\n  {go_on}"
            ) from error
        if not (folder / STATES).is_dir():
            best = best_weights(folder)
            raise InputError(
                f"{folder / STATES} was removed while the run went on, and its states with it. "
                + (f"The best weights are in {best}: start a new run from them" if best.exists() else "Start again")
                + f" in another output_dir{f', with init_from={folder}' * best.exists()}"
            ) from error
        raise


def _explain_memory(config: TrainConfig) -> str:
    """Says what did not fit, and every setting that makes a step smaller."""
    runtime, clip = config.runtime, config.clip
    return (
        f"out of memory: batch_size={count_of(config.batch_size, 'clip')} of {clip.num_frames} x {clip.crop} x "
        f"{clip.crop} with "
        f"runtime.micro_batches={runtime.micro_batches} and runtime.remat={str(runtime.remat).lower()}; the line "
        "`memory:` of the log estimates what a device needs. runtime.micro_batches takes the same step in parts, "
        "runtime.remat=true computes each block twice instead of keeping what is inside, and a smaller batch_size, "
        "clip.num_frames or clip.crop is another training"
    )


def _less_memory(config: TrainConfig, strategy: tf.distribute.Strategy) -> str:
    """Names the next setting to try that leaves the step as it is; empty if there is none."""
    is_cpu, augment = "CPU" in strategy.extended.worker_devices[0], config.augment
    kept, twice = (estimate_run(config, 1, 1, is_cpu, remat).activations for remat in (False, True))
    if not config.runtime.remat and twice < kept:
        return "runtime.remat=true"
    unit = strategy.num_replicas_in_sync * (2 if augment.mixup > 0 or augment.cutmix > 0 else 1)
    finer = range(config.runtime.micro_batches + 1, config.batch_size // unit + 1)
    return next((f"runtime.micro_batches={parts}" for parts in finer if config.batch_size % (parts * unit) == 0), "")
