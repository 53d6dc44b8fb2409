"""Real runs of wandb without a network, read from the files that `wandb sync` would upload."""

import gc
import hashlib
import json
import re
import resource
import time
from base64 import b64decode
from pathlib import Path
from subprocess import Popen
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import tensorflow as tf
import wandb
from wandb.errors import CommError

import vswin
from vswin.errors import InputError
from vswin.evaluation.loggers import Example
from vswin.models.zoo import ModelSize
from vswin.runtime import start_log
from vswin.training.loggers import open_loggers, open_wandb
from vswin.weights.checkpoint import open_weights
from vswin.weights.files import save_checkpoint
from vswin.weights.names import official_tensors

pytestmark = pytest.mark.usefixtures("wandb_offline")


def figures(session) -> list[dict]:
    return [{key: row[key] for key in ("_step", "epoch", "train/loss", "val/top1")} for row in session.history]


def test_an_offline_run_has_configuration_and_figures_and_goes_on_when_resumed(
    compose_train, tmp_path, capsys, wandb_offline
):
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

    first, second = wandb_offline(folder)
    for session in (first, second):
        logged = session.config
        assert (session.run.project, session.run.display_name) == ("swins", "my run")
        assert logged["seed"] == 7
        assert logged["versions"] == {"vswin": vswin.__version__, "tensorflow": tf.__version__}
        assert logged["model"]["name"] == "swin_tiny"
        assert logged["optimizer"]["learning_rate"] == config.optimizer.learning_rate
        assert session.exit_code == 0
    assert first.run.run_id == second.run.run_id == (folder / "wandb_run_id.txt").read_text()
    assert figures(first) == [
        {"_step": 1, "epoch": 1, "train/loss": 1.5, "val/top1": 0.25},
        {"_step": 2, "epoch": 2, "train/loss": 0.5, "val/top1": 0.75},
    ]
    assert figures(second) == [{"_step": 3, "epoch": 3, "train/loss": 0.25, "val/top1": 1.0}]


@pytest.mark.parametrize(("error", "code"), [(SystemExit(130), 130), (InputError("disk"), 1), (SystemExit("x"), 1)])
def test_a_run_that_does_not_end_well_says_so(compose_train, tmp_path, wandb_offline, error, code):
    def train() -> None:
        with open_wandb(compose_train("logger=wandb"), tmp_path) as log:
            log.on_epoch_end(0, {"loss": 1.0, "val_top1": 0.0})
            raise error

    with pytest.raises(type(error)):
        train()
    (session,) = wandb_offline(tmp_path)
    assert session.exit_code == code
    assert len(figures(session)) == 1


def test_nobody_is_asked_for_a_key_on_a_terminal(compose_train, tmp_path, monkeypatch, wandb_offline):
    asked = []
    monkeypatch.setattr("wandb.errors.term.can_use_terminput", lambda: True)
    monkeypatch.setattr("wandb.errors.term.terminput", lambda *args, **kwargs: asked.append(args))
    with open_wandb(compose_train("logger=wandb"), tmp_path):
        pass
    assert asked == []
    assert len(wandb_offline(tmp_path)) == 1


def test_wandb_can_be_switched_off_from_outside(compose_train, tmp_path, monkeypatch, capsys, wandb_offline):
    start_log(None)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with open_wandb(compose_train("logger=wandb"), tmp_path) as log:
        log.on_epoch_end(0, {"loss": 1.0})
    assert capsys.readouterr().out == "wandb:          off, as WANDB_MODE=disabled says\n"
    assert wandb_offline(tmp_path) == []


def test_wandb_whose_process_is_killed_ends_no_training(compose_train, tmp_path, capsys):
    start_log(None)
    with open_wandb(compose_train("logger=wandb"), tmp_path) as log:
        children = " ".join(path.read_text() for path in Path("/proc/self/task").glob("*/children")).split()
        (service,) = [int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text() == "wandb-core\n"]
        # Otherwise the Popen object would warn when it is deleted before the process has ended.
        (process,) = [thing for thing in gc.get_objects() if isinstance(thing, Popen) and thing.pid == service]
        process.kill()
        process.wait()
        for epoch in range(20):
            log.on_epoch_end(epoch, {"loss": 1.0})
            time.sleep(0.01)
    output = capsys.readouterr().out
    assert re.search(r"wandb: epoch \d+ was not taken \(.+\); training goes on\n", output)
    assert re.search(
        rf"wandb: not everything was sent .*\n  wandb sync --include-online {tmp_path}/wandb/offline-run-\S+\n", output
    )


def test_on_a_full_disk_the_log_of_wandb_shows_no_tracebacks(compose_train, tmp_path, capfd):
    """The disk is already full when wandb starts: no file may have more than 300 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
    try:
        with open_wandb(compose_train("logger=wandb"), tmp_path) as log:
            log.on_epoch_end(0, {"loss": 1.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        wandb.teardown()
    assert "Logging error" not in capfd.readouterr().err


def test_with_a_key_the_run_is_online(compose_train, tmp_path, monkeypatch):
    """Checks what wandb is asked for; the run itself would need a network."""
    asked = {}

    def init(**arguments):
        asked.update(arguments)
        raise CommError("no route to the server")

    def login(prompt, verify):
        asked["login"] = (prompt, verify)
        return True

    monkeypatch.setattr(wandb, "init", init)
    # With a real key, wandb's service would look for its server, even when it ends.
    monkeypatch.setattr(wandb, "login", login)
    refused = "which cannot start: no route to the server; set WANDB_MODE=offline or leave out logger=wandb"
    with pytest.raises(InputError, match=refused), open_wandb(compose_train("logger=wandb"), tmp_path):
        pass
    assert asked["login"] == (False, False)
    assert (asked["mode"], asked["resume"], asked["id"]) == (None, "allow", (tmp_path / "wandb_run_id.txt").read_text())


@pytest.fixture(scope="module")
def model():
    """A network of 83,000 parameters, so large that a copy of its files would be noticed."""
    size = ModelSize(embed_dim=32, depths=(1, 1), num_heads=(1, 2), patch_size=(2, 4, 4), window_size=(2, 2, 2))
    return vswin.build_model(size, num_classes=3)


@pytest.fixture
def train(compose_train, tmp_path, model):
    """Logs two epochs with the best weights of given epochs, e.g. `train({"best": 1})`; returns the folder."""

    def trained(best: dict[str, int], *overrides: str) -> Path:
        folder = tmp_path / "run"
        folder.mkdir()
        for name, epoch in best.items():
            metadata = {"model": "swin_micro", "dataset": "motion", "num_classes": 3, "class_names": ["a", "b", "c"]}
            metadata |= {"epoch": epoch, "val_top1": 0.25 * epoch}
            save_checkpoint(folder / "checkpoints" / f"{name}.safetensors", official_tensors(model), metadata)
        with open_wandb(compose_train("logger=wandb", *overrides), folder) as log:
            log.model = SimpleNamespace(model=model, thresholds={})
            log.on_epoch_end(0, {"loss": 1.0, "val_top1": 0.75})
            log.on_epoch_end(1, {"loss": 0.5, "val_top1": 0.5})
        return folder

    return trained


def describe(artifact, folder: Path) -> tuple:
    """Returns the metadata of an artifact after comparing its file with that on the disk."""
    (entry,) = artifact.manifest.contents
    path = Path(entry.local_path)
    assert path.name == entry.path
    assert b64decode(entry.digest) == hashlib.md5(path.read_bytes(), usedforsecurity=False).digest()
    assert entry.size == path.stat().st_size
    metadata = json.loads(artifact.metadata)
    assert metadata.keys() == {"epoch", "val_top1", "model", "dataset", "num_classes"}
    assert (metadata["model"], metadata["dataset"], metadata["num_classes"]) == ("swin_micro", "motion", 3)
    place, figures = str(path.relative_to(folder)), (metadata["epoch"], metadata["val_top1"])
    return artifact.name, sorted({*artifact.aliases} - {"latest"}), place, figures


def test_weights_of_a_run_whose_last_epoch_was_its_best_are_one_version(train, wandb_offline):
    folder = train({"best": 2})
    (session,) = wandb_offline(folder)
    run_id = (folder / "wandb_run_id.txt").read_text()
    described = [describe(artifact, folder) for artifact in session.artifacts]
    assert described == [(f"run-{run_id}-model", ["best", "last"], "checkpoints/best.safetensors", (2, 0.5))]
    assert {artifact.run_id for artifact in session.artifacts} == {run_id}
    assert not (folder / "wandb" / "last.safetensors").exists()


def test_the_weights_of_a_later_epoch_and_the_average_are_versions_of_their_own(train, wandb_offline, model):
    folder = train({"best": 1, "best_ema": 2})
    (session,) = wandb_offline(folder)
    run_id = session.run.run_id
    assert [describe(artifact, folder) for artifact in session.artifacts] == [
        (f"run-{run_id}-model", ["best"], "checkpoints/best.safetensors", (1, 0.25)),
        (f"run-{run_id}-model", ["last"], "wandb/last.safetensors", (2, 0.5)),
        (f"run-{run_id}-ema", ["best"], "checkpoints/best_ema.safetensors", (2, 0.5)),
    ]
    last = open_weights(folder / "wandb" / "last.safetensors")
    assert last.metadata["class_names"] == ["a", "b", "c"]
    for name, values in official_tensors(model).items():
        assert (last.tensors[name] == values).all()


@pytest.mark.parametrize(
    ("best", "overrides"), [({"best": 1, "best_ema": 1}, ["logger.wandb_weights=false"]), ({}, [])]
)
def test_no_weights_are_logged_where_they_are_not_wanted_or_not_there(train, wandb_offline, best, overrides):
    (session,) = wandb_offline(train(best, *overrides))
    assert session.artifacts == []
    assert len(session.history) == 2
    assert session.exit_code == 0


def test_sample_predictions_stand_beside_the_last_epoch_of_a_run_that_ends(compose_train, tmp_path, wandb_offline):
    samples = [Example(f"caption {level}", np.full((4, 32, 48, 3), level, np.uint8)) for level in (40, 200)]
    with open_wandb(compose_train("logger=wandb"), tmp_path, lambda: samples) as log:
        log.on_epoch_end(0, {"loss": 1.0, "val_top1": 0.75})
        log.on_epoch_end(1, {"loss": 0.5, "val_top1": 0.5})
    (session,) = wandb_offline(tmp_path)
    first, last = session.history
    assert not [key for key in first if key.startswith("val/samples")]
    assert (last["_step"], last["val/top1"], last["val/samples/_type"]) == (2, 0.5, "videos")
    assert last["val/samples/captions"] == ["caption 40", "caption 200"]
    for film, level in zip(last["val/samples/videos"], (40, 200), strict=True):
        (path,) = tmp_path.glob(f"wandb/offline-run-*/files/{film['path']}")
        capture = cv2.VideoCapture(str(path))
        frames = [capture.read()[1] for _ in range(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))]
        capture.release()
        assert [frame.shape for frame in frames] == [(32, 48, 3)] * 4
        np.testing.assert_allclose(frames, level, atol=3)


def test_samples_and_weights_that_cannot_be_logged_are_said_and_end_nothing(
    compose_train, tmp_path, wandb_offline, capsys
):
    def predict():
        raise tf.errors.ResourceExhaustedError(None, None, "no memory")

    start_log(None)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.safetensors").write_bytes(b"no weights")
    with open_wandb(compose_train("logger=wandb"), tmp_path, predict) as log:
        log.on_epoch_end(0, {"loss": 1.0, "val_top1": 0.75})
    printed = capsys.readouterr().out
    assert "wandb: the sample predictions were not taken (no memory)\n" in printed
    expected = rf"wandb: the weights were not taken \(.+best\.safetensors.+\); they are in {tmp_path / 'checkpoints'}\n"
    assert re.search(expected, printed)
    (session,) = wandb_offline(tmp_path)
    assert (session.artifacts, session.exit_code) == ([], 0)


def test_a_run_that_is_stopped_logs_neither_weights_nor_predictions(compose_train, tmp_path, wandb_offline, model):
    metadata, asked = {"epoch": 1, "val_top1": 0.5}, []
    save_checkpoint(tmp_path / "checkpoints" / "best.safetensors", official_tensors(model), metadata)

    def train() -> None:
        with open_wandb(compose_train("logger=wandb"), tmp_path, lambda: asked.append(1)) as log:
            log.on_epoch_end(0, {"loss": 1.0, "val_top1": 0.75})
            raise SystemExit(143)

    with pytest.raises(SystemExit):
        train()
    assert (asked, wandb_offline(tmp_path)[0].artifacts) == ([], [])


def test_a_resumed_session_has_the_epochs_that_a_killed_one_had_not_written_yet(compose_train, tmp_path, wandb_offline):
    (tmp_path / "history.csv").write_text("epoch,loss,val_top1,lr_head\n0,1.5,0.25,\n1,0.5,0.75,0.125\n2,9,9,9\n")
    config = compose_train("logger=wandb", "logger.tensorboard=false")
    with open_loggers(config, tmp_path, 2) as (history, log):
        for logger in (history, log):
            logger.on_epoch_end(2, {"loss": 0.25, "val_top1": 1.0, "lr_head": 0.0})
    (session,) = wandb_offline(tmp_path)
    assert figures(session) == [
        {"_step": 1, "epoch": 1, "train/loss": 1.5, "val/top1": 0.25},
        {"_step": 2, "epoch": 2, "train/loss": 0.5, "val/top1": 0.75},
        {"_step": 3, "epoch": 3, "train/loss": 0.25, "val/top1": 1.0},
    ]
    assert ["train/lr_head" in row for row in session.history] == [False, True, True]
