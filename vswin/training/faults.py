"""A run that the machine ends, a disk or its memory: what is saved, and how the run goes on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vswin.errors import InputError, disk_fault, is_out_of_memory
from vswin.schema import TrainConfig
from vswin.training.checkpoints import Checkpoints
from vswin.training.run_folder import STATES
from vswin.weights.formats.hdf5_file import BEST_CHECKPOINT
from vswin.wording import count_of


@contextmanager
def faults_explained(config: TrainConfig, checkpoints: Checkpoints, folder: Path, go_on: str) -> Iterator[None]:
    """Turns the errors of disks and of memory, as the libraries of a run report them, into what a user can act on.

    Args:
        config: the run.
        checkpoints: knows what is saved.
        folder: the run's folder.
        go_on: the command that continues the run.

    Raises:
        InputError: if a disk is full, read-only or broken, the run's folder is gone, or memory was not enough.
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
                f"the folder of the run, {folder}, was moved or removed while it went on. {kept}: bring it back and "
                f"go on with\n  {go_on}\nor name its new place there with output_dir=; if it is gone, start again"
            ) from error
        if fault is not None:
            raise InputError(
                f"writing into {folder} failed: {fault.reason}; {saved}. {fault.way_out.capitalize()}, then go on "
                f"with\n  {go_on}"
            ) from error
        if is_out_of_memory(error):
            raise InputError(
                f"{_explain_memory(config)}. {saved.capitalize()}. Go on with\n  {go_on} {_less_memory(config)}"
            ) from error
        if not (folder / STATES).is_dir():
            best = folder / BEST_CHECKPOINT
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


def _less_memory(config: TrainConfig) -> str:
    """Names the next setting to try that leaves the step as it is."""
    now = config.runtime.micro_batches
    finer = [parts for parts in range(now + 1, config.batch_size + 1) if config.batch_size % parts == 0]
    if config.runtime.remat and finer:
        return f"runtime.micro_batches={finer[0]}"
    return "runtime.remat=true"
