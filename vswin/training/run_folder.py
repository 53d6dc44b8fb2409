"""The folder of a run: where it is, that it belongs to this run alone, and which run to resume."""

import os
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vswin.config import differing_keys, save_config
from vswin.errors import InputError
from vswin.file_lock import file_lock_if_possible
from vswin.runtime import OUTPUTS, default_output_dir
from vswin.schema import TrainConfig


def open_run_folder(config: TrainConfig) -> Path:
    """Finds or creates the folder that a training run writes into, with its config.yaml.

    Args:
        config: `output_dir` and `resume` decide; see `configs/train.yaml`.

    Returns:
        An existing folder that holds this run's config.yaml.

    Raises:
        InputError: if the folder holds another run or other files, cannot be written, or there is no run to resume.
    """
    if config.resume and config.output_dir is None:
        return _newest_run(config)
    folder = (
        Path(config.output_dir)
        if config.output_dir is not None
        else default_output_dir(config.model.name, config.dataset.name)
    )
    if (folder / "config.yaml").exists():
        _check_same_run(config, folder)
        return folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"output_dir={folder} exists and is not the folder of a run; name an empty or a new one")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_config(config, folder / "config.yaml")
    except OSError as error:
        raise InputError(f"output_dir={folder} cannot be written ({error.strerror}); name another folder") from error
    return folder


@contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Keeps other processes, on this machine or another, from training in the same folder meanwhile.

    Args:
        folder: the run's folder.

    Raises:
        InputError: if another process does, or the folder cannot be written.
    """
    path = folder / ".lock"

    def refuse() -> None:
        holder = path.read_text(encoding="utf-8")
        raise InputError(
            f"another process is training in {folder} ({holder}); wait until it has ended, or name another output_dir"
        )

    with ExitStack() as held:
        try:
            held.enter_context(file_lock_if_possible(path, refuse))
            path.write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"output_dir={folder} cannot be written ({error.strerror}); name another folder"
            ) from error
        yield


def _check_same_run(config: TrainConfig, folder: Path) -> None:
    if not config.resume:
        raise InputError(f"output_dir={folder} holds another run; name another folder, or continue it with resume=true")
    differing = differing_keys(config, folder)
    if differing:
        raise InputError(
            f"resume=true: the run in {folder} was configured otherwise: {'; '.join(differing)}; "
            "give it the same values, or start a new run in another output_dir"
        )


def _newest_run(config: TrainConfig) -> Path:
    runs = [path.parent for path in OUTPUTS.glob("*/config.yaml")]
    same = [run for run in runs if not differing_keys(config, run)]
    if not same:
        raise InputError(
            f"resume=true: none of the {len(runs)} runs in {OUTPUTS}/ has this configuration; "
            "name the run with output_dir=, or leave out resume=true to start a new one"
        )
    return max(same, key=lambda run: (run / "config.yaml").stat().st_mtime)
