"""Real runs of wandb without a network, read back from the files that `wandb sync` would upload."""

import json
import os
import re
import signal
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tensorflow as tf
import wandb
from wandb.errors import CommError
from wandb.proto.wandb_internal_pb2 import Record

import vswin
from vswin.errors import InputError
from vswin.runtime import start_log
from vswin.training.wandb_log import open_wandb

BLOCK_BYTES = 32 * 1024
HEADER_BYTES = 7
FULL, LAST = 1, 4


def read_records(path: Path) -> Iterator[Record]:
    """Yields what was logged: the file is a log in LevelDB's format, each record a message of wandb's protocol."""
    contents = path.read_bytes()
    assert contents[:4] == b":W&B"
    position, parts = HEADER_BYTES, b""
    while position + HEADER_BYTES <= len(contents):
        left = BLOCK_BYTES - position % BLOCK_BYTES
        if left < HEADER_BYTES:
            position += left
            continue
        _, size, kind = struct.unpack_from("<IHB", contents, position)
        position += HEADER_BYTES
        parts += contents[position : position + size]
        position += size
        if kind in (FULL, LAST):
            yield Record.FromString(parts)
            parts = b""


@pytest.fixture(autouse=True)
def _no_account(tmp_path, monkeypatch):
    """Hides the account of whoever runs the tests, and ends wandb's process afterwards."""
    # wandb puts functions of its own in their place, and leaves them there.
    for name in ("exit", "excepthook"):
        monkeypatch.setattr(sys, name, getattr(sys, name))
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    for name, value in {"HOME": home, "NETRC": home / "netrc", "WANDB_CONFIG_DIR": home / "wandb"}.items():
        monkeypatch.setenv(name, str(value))
    wandb.teardown()
    yield
    wandb.teardown()


def read_runs(folder: Path) -> list[list[Record]]:
    """Reads the records of a folder's offline sessions, in the order of their time."""
    # Its process writes the last records while it ends.
    wandb.teardown()
    files = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime_ns)
    return [list(read_records(path)) for path in files]


def figures(records: list[Record]) -> list[dict]:
    rows = []
    for record in records:
        if record.WhichOneof("record_type") == "history":
            items = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            rows.append({key: items[key] for key in ("_step", "epoch", "train/loss", "val/top1")})
    return rows


def run_of(records: list[Record]):
    (run,) = {record.run.run_id: record.run for record in records if record.WhichOneof("record_type") == "run"}.values()
    return run


def exit_code_of(records: list[Record]) -> int:
    (code,) = [record.exit.exit_code for record in records if record.WhichOneof("record_type") == "exit"]
    return code


def test_an_offline_run_has_configuration_and_figures_and_goes_on_when_resumed(compose_train, tmp_path, capsys):
    start_log(None)
    folder = tmp_path / "my run"
    folder.mkdir()
    config = compose_train("logger=wandb", "logger.wandb_project=swins", "model=swin_tiny", "seed=7")
    with open_wandb(config, folder) as log:
        log.on_epoch_end(0, {"loss": 1.5, "val_top1": 0.25})
        log.on_epoch_end(1, {"loss": 0.5, "val_top1": 0.75})
    upload = f"wandb sync '{folder}/wandb'/offline-run-*"
    assert capsys.readouterr().out == f"wandb:          offline; upload with: {upload}\n"
    with open_wandb(config, folder) as log:
        log.on_epoch_end(2, {"loss": 0.25, "val_top1": 1.0})

    first, second = read_runs(folder)
    for records in (first, second):
        run = run_of(records)
        assert (run.project, run.display_name) == ("swins", "my run")
        logged = {item.key: json.loads(item.value_json) for item in run.config.update}
        assert logged["seed"] == 7
        assert logged["versions"] == {"vswin": vswin.__version__, "tensorflow": tf.__version__}
        assert logged["model"]["name"] == "swin_tiny"
        assert logged["optimizer"]["learning_rate"] == config.optimizer.learning_rate
        assert exit_code_of(records) == 0
    assert run_of(first).run_id == run_of(second).run_id == (folder / "wandb_run_id.txt").read_text()
    assert figures(first) == [
        {"_step": 1, "epoch": 1, "train/loss": 1.5, "val/top1": 0.25},
        {"_step": 2, "epoch": 2, "train/loss": 0.5, "val/top1": 0.75},
    ]
    assert figures(second) == [{"_step": 3, "epoch": 3, "train/loss": 0.25, "val/top1": 1.0}]


@pytest.mark.parametrize(("error", "code"), [(SystemExit(130), 130), (InputError("disk"), 1), (SystemExit("x"), 1)])
def test_a_run_that_does_not_end_well_says_so(compose_train, tmp_path, error, code):
    def train() -> None:
        with open_wandb(compose_train("logger=wandb"), tmp_path) as log:
            log.on_epoch_end(0, {"loss": 1.0, "val_top1": 0.0})
            raise error

    with pytest.raises(type(error)):
        train()
    (records,) = read_runs(tmp_path)
    assert exit_code_of(records) == code
    assert len(figures(records)) == 1


def test_nobody_is_asked_for_a_key_on_a_terminal(compose_train, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("wandb.errors.term.can_use_terminput", lambda: True)
    monkeypatch.setattr("wandb.errors.term.terminput", lambda *args, **kwargs: asked.append(args))
    with open_wandb(compose_train("logger=wandb"), tmp_path):
        pass
    assert asked == []
    assert len(read_runs(tmp_path)) == 1


def test_wandb_can_be_switched_off_from_outside(compose_train, tmp_path, monkeypatch, capsys):
    start_log(None)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with open_wandb(compose_train("logger=wandb"), tmp_path) as log:
        log.on_epoch_end(0, {"loss": 1.0})
    assert capsys.readouterr().out == "wandb:          off, as WANDB_MODE=disabled says\n"
    assert read_runs(tmp_path) == []


def test_wandb_whose_process_is_killed_ends_no_training(compose_train, tmp_path, capsys):
    start_log(None)
    with open_wandb(compose_train("logger=wandb"), tmp_path) as log:
        children = " ".join(path.read_text() for path in Path("/proc/self/task").glob("*/children")).split()
        (service,) = [int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text() == "wandb-core\n"]
        os.kill(service, signal.SIGKILL)
        os.waitpid(service, 0)
        for epoch in range(20):
            log.on_epoch_end(epoch, {"loss": 1.0})
            time.sleep(0.01)
    output = capsys.readouterr().out
    assert re.search(r"wandb: epoch \d+ was not taken \(.+\); training goes on\n", output)
    assert re.search(
        rf"wandb: not everything was sent .*\n  wandb sync --include-online {tmp_path}/wandb/offline-run-\S+\n", output
    )


def test_with_a_key_the_run_is_online(compose_train, tmp_path, monkeypatch):
    """What wandb is asked for; the run itself would need a network."""
    asked = {}

    def init(**arguments):
        asked.update(arguments)
        raise CommError("no route to the server")

    def login(prompt, verify):
        asked["login"] = (prompt, verify)
        return True

    monkeypatch.setattr(wandb, "init", init)
    # A real key would make wandb's service look for its server, also when it ends.
    monkeypatch.setattr(wandb, "login", login)
    refused = "which cannot start: no route to the server; set WANDB_MODE=offline or leave out logger=wandb"
    with pytest.raises(InputError, match=refused), open_wandb(compose_train("logger=wandb"), tmp_path):
        pass
    assert asked["login"] == (False, False)
    assert (asked["mode"], asked["resume"], asked["id"]) == (None, "allow", (tmp_path / "wandb_run_id.txt").read_text())
