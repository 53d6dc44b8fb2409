"""A run of Weights & Biases: online if there is an API key, else in files that `wandb sync` uploads."""

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
# Without a limit, wandb retries until it reaches its server.
_FINISH_SEC = 60.0


@contextmanager
def wandb_run(folder: Path, project: str, config: Mapping[str, Any], option: str) -> Iterator[Run]:
    """Starts or resumes the wandb run that belongs to a run's folder, and finishes it however the block ends.

    The folder keeps the id of the wandb run. Without an API key, the run is offline; wandb never prompts. `WANDB_MODE`
    has its usual meaning. A lost network ends nothing: after a minute, or `WANDB_FINISH_TIMEOUT` seconds, the log names
    the command that sends the rest. If wandb cannot start, an `InputError` names `option`, which asks for it.
    """
    # wandb writes its own log; errors of that log on a full disk are not shown.
    shown, logging.raiseExceptions = logging.raiseExceptions, False
    exit_code = 1
    try:
        run = _start(folder, project, config, option)
        try:
            yield run
            exit_code = 0
        except SystemExit as stop:
            exit_code = stop.code if isinstance(stop.code, int) else 1
            raise
        finally:
            _finish(run, exit_code)
    finally:
        logging.raiseExceptions = shown


def _start(folder: Path, project: str, config: Mapping[str, Any], option: str) -> Run:
    defaults = wandb.setup().settings
    limit: dict[str, Any] = {}
    if hasattr(defaults, "finish_timeout"):  # since wandb 0.27
        limit = {"finish_timeout": defaults.finish_timeout or _FINISH_SEC, "finish_timeout_raises": True}
    # The folder keeps the first id, which the agent of a sweep may have chosen.
    id_path = folder / RUN_ID_NAME
    if not id_path.exists():
        with replacing(id_path) as partial:
            partial.write_text(defaults.run_id or secrets.token_hex(4), encoding="utf-8")
    needs_no_account = defaults.mode in ("offline", "dryrun", "disabled")
    try:
        run = wandb.init(
            project=project,
            name=folder.name,
            id=id_path.read_text(encoding="utf-8").strip(),
            resume="allow",
            dir=folder,
            config={**config, "versions": {"vswin": __version__, "tensorflow": tf.__version__}},
            mode=None if needs_no_account or _has_account() else "offline",
            # train.log already has what the terminal shows.
            settings=wandb.Settings(console="off", silent=True, **limit),
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


def _finish(run: Run, exit_code: int) -> None:
    try:
        run.finish(exit_code=exit_code)
    except Exception as error:  # an error of wandb must not end the training
        path = shlex.quote(str(Path(run.dir).parent))
        logger.info(
            f"wandb: not everything was sent ({error}). What is on the disk can be sent with\n"
            f"  wandb sync --include-online {path}"
        )
        if not isinstance(error, TimeoutError):
            # wandb's process is gone; after a teardown, wandb does not look for it when Python ends.
            with suppress(Exception):
                wandb.teardown()


def _has_account() -> bool:
    """Looks for credentials without prompting for them."""
    if "prompt" in inspect.signature(wandb.login).parameters:
        return wandb.login(prompt=False, verify=False)
    # TensorFlow before 2.18 needs an older protobuf, and so this older wandb.
    return wandb.api.api_key is not None
