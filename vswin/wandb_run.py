"""A run of Weights & Biases: online where it finds an API key, else in files that `wandb sync` uploads."""

import inspect
import logging
import secrets
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import tensorflow as tf
import wandb
from wandb.sdk.wandb_run import Run

from vswin import __version__
from vswin.atomic import replacing
from vswin.errors import InputError
from vswin.runtime import logger

RUN_ID_NAME = "wandb_run_id.txt"
_WITHOUT_ACCOUNT = ("offline", "dryrun", "disabled")
# Without a bound wandb tries for as long as its server cannot be reached.
_FINISH_SEC = 60.0


@contextmanager
def wandb_run(folder: Path, project: str, config: Mapping[str, Any], option: str) -> Iterator[Run]:
    """Starts, or resumes, the wandb run that belongs to a run's folder, and finishes it whatever happens.

    Without an API key (environment, netrc, settings: as wandb itself looks for it) the run is offline; nothing is
    ever asked for. `WANDB_MODE` has its usual meaning. What cannot be sent, as the network has gone, ends nothing:
    after a minute, or `WANDB_FINISH_TIMEOUT` seconds, it is said how to send it.

    Args:
        folder: the run's folder; wandb writes into it, and it keeps the id of the wandb run.
        project: of wandb.
        config: joins the configuration of the wandb run, with the versions of vswin and TensorFlow; of the code
            wandb itself notes the git commit.
        option: what on the command line asks for wandb, as messages name it.

    Raises:
        InputError: if wandb cannot start.
    """
    run = _start(folder, project, config, option)
    exit_code = 1
    try:
        yield run
        exit_code = 0
    except SystemExit as stop:
        exit_code = stop.code if isinstance(stop.code, int) else 1
        raise
    finally:
        # wandb has a log of its own; where a full disk does not take it, the figures are what counts.
        with _errors_of_logging_hidden():
            _finish(run, exit_code)


def _finish(run: Run, exit_code: int) -> None:
    """Lets wandb send what is left, and says how to if it cannot."""
    try:
        run.finish(exit_code=exit_code)
    except Exception as error:  # whatever becomes of wandb, the training is what counts
        folder = shlex.quote(str(Path(run.dir).parent))
        logger.info(
            f"wandb: not everything was sent ({error}). What is on the disk can be sent with\n"
            f"  wandb sync --include-online {folder}"
        )
        if not isinstance(error, TimeoutError):
            # Its process is gone: taken down now, it is not looked for when Python ends.
            with suppress(Exception):
                wandb.teardown()


@contextmanager
def _errors_of_logging_hidden() -> Iterator[None]:
    shown, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        yield
    finally:
        logging.raiseExceptions = shown


def _start(folder: Path, project: str, config: Mapping[str, Any], option: str) -> Run:
    """Starts wandb and says where its figures go."""
    versions = {"vswin": __version__, "tensorflow": tf.__version__}
    try:
        run = wandb.init(
            project=project,
            name=folder.name,
            id=_run_id(folder),
            resume="allow",
            dir=folder,
            config={**config, "versions": versions},
            mode=None if _needs_no_account() or _has_account() else "offline",
            # train.log has what the terminal shows.
            settings=wandb.Settings(console="off", silent=True, **_finish_limit()),
        )
    except wandb.Error as error:
        raise InputError(
            f"{option} asks for wandb, which cannot start: {error}; set WANDB_MODE=offline or leave out {option}"
        ) from error
    if run.disabled:
        where = "off, as WANDB_MODE=disabled says"
    elif run.offline:
        where = f"offline; upload with: wandb sync {shlex.quote(str(folder / 'wandb'))}/offline-run-*"
    else:
        where = str(run.url)
    logger.info(f"{'wandb:':<16}{where}")
    return run


def _finish_limit() -> dict[str, Any]:
    """Gives the settings that bound how long wandb may take to finish; wandb 0.26 and before have none."""
    settings = wandb.setup().settings
    if not hasattr(settings, "finish_timeout"):
        return {}
    return {"finish_timeout": settings.finish_timeout or _FINISH_SEC, "finish_timeout_raises": True}


def _needs_no_account() -> bool:
    return wandb.setup().settings.mode in _WITHOUT_ACCOUNT


def _has_account() -> bool:
    """Looks for credentials without ever asking for them."""
    if "prompt" in inspect.signature(wandb.login).parameters:
        return wandb.login(prompt=False, verify=False)
    # The wandb that TensorFlow before 2.18 allows: it takes an older protobuf.
    return wandb.api.api_key is not None


def _run_id(folder: Path) -> str:
    """Returns the id of the folder's wandb run; a new one, which the agent of a sweep may have chosen, is kept."""
    path = folder / RUN_ID_NAME
    if not path.exists():
        with replacing(path) as partial:
            partial.write_text(wandb.setup().settings.run_id or secrets.token_hex(4), encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()
