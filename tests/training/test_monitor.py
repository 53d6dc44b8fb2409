"""The figure of validation that chooses the best epoch: its value, the epoch, and what follows from it."""

import csv
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import balanced_accuracy_score, f1_score

from tests.training.test_checkpoints import SIZE, epoch_of, make_checkpoints
from tests.training.test_loggers import figures
from tests.training.test_run import start  # noqa: F401
from vswin.errors import InputError
from vswin.runtime import make_strategy, start_log
from vswin.training.callbacks import EpochReport
from vswin.training.loggers import TensorBoardLog
from vswin.training.trainer import ClassFigures
from vswin.weights.build import build_model
from vswin.weights.checkpoint import open_checkpoint, read_metadata
from vswin.weights.files import BEST_AVERAGE, BEST_CHECKPOINT, best_weights, save_checkpoint
from vswin.weights.names import official_tensors

# Each epoch is the best by one of the figures, the last by the loss.
EPOCHS = [
    {"val_top1": 0.5, "val_f1_macro": 0.5, "val_balanced_accuracy": 0.25, "val_loss": 2.0},
    {"val_top1": 0.75, "val_f1_macro": 0.5, "val_balanced_accuracy": 0.25, "val_loss": 3.0},
    {"val_top1": 0.75, "val_f1_macro": 0.625, "val_balanced_accuracy": 0.5, "val_loss": 2.0},
    {"val_top1": 0.25, "val_f1_macro": 0.625, "val_balanced_accuracy": 0.75, "val_loss": 1.5},
]
BEST = {"val_top1": 2, "val_f1_macro": 3, "val_balanced_accuracy": 4, "val_loss": 4}


def test_class_figures_of_a_whole_set_are_those_of_scikit_learn_on_two_devices():
    """Class 3 has no videos but predictions; the last batch has padding and a video that cannot be decoded."""
    rng = np.random.default_rng(0)
    labels, logits = rng.choice([0, 1, 1, 2, 2, 2, 4], 24), rng.normal(size=(24, 5)).astype("f4")
    logits[np.arange(24), labels] += 1
    logits[3, 3] = 9
    is_counted = np.arange(24) < 20
    given = np.where(is_counted, labels, [-1, 0] * 12).astype("i4")
    weights = (is_counted | (given < 0)).astype("f4")
    strategy = make_strategy("mirrored")
    with strategy.scope():
        metric = ClassFigures(5, "ema_")

    @tf.function
    def add(batch: int) -> None:
        def update() -> None:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            first = 8 * batch + 4 * replica
            metric.update_state(*(tf.constant(values)[first : first + 4] for values in (given, logits, weights)))

        strategy.run(update)

    assert strategy.num_replicas_in_sync == 2
    for _ in range(2):
        metric.reset_state()
        for batch in range(3):
            add(batch)
    actual, predicted = labels[is_counted], logits.argmax(axis=1)[is_counted]
    assert set(predicted) == {0, 1, 2, 3, 4}
    f1 = f1_score(actual, predicted, labels=np.unique(actual), average="macro", zero_division=0)
    recall = np.mean([np.mean(predicted[actual == label] == label) for label in np.unique(actual)])
    assert metric.result()["ema_f1_macro"].numpy() == pytest.approx(f1)
    assert metric.result()["ema_balanced_accuracy"].numpy() == pytest.approx(recall)
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        assert recall == pytest.approx(balanced_accuracy_score(actual, predicted))


def train_epochs(checkpoints, epochs, first=0) -> None:
    for epoch, logs in enumerate(epochs, start=first):
        checkpoints.trainer.model.head.linear.bias.assign([epoch + 1, 0, 0])
        checkpoints.on_epoch_end(epoch, dict(logs))
    checkpoints.finish_saving()


@pytest.mark.parametrize("monitor", BEST)
def test_the_monitor_chooses_the_epoch_also_after_a_resume(tmp_path, capsys, monitor):
    start_log(None)
    train_epochs(make_checkpoints(tmp_path, monitor=monitor), EPOCHS[:3])
    resumed = make_checkpoints(tmp_path, monitor=monitor)
    assert resumed.restore() == 3
    train_epochs(resumed, EPOCHS[3:], first=3)
    metadata, best = read_metadata(tmp_path), EPOCHS[BEST[monitor] - 1]
    assert (metadata["epoch"], metadata["monitor"]) == (BEST[monitor], monitor)
    assert (metadata[monitor], metadata["val_top1"]) == (best[monitor], best["val_top1"])
    assert resumed.best_value == best[monitor]
    resumed.on_train_end()
    shown = {"val_top1": "top-1 75.0 %", "val_f1_macro": "macro F1 62.5 %"}
    shown |= {"val_balanced_accuracy": "balanced accuracy 75.0 %", "val_loss": "loss 1.500"}
    assert f"best epoch {BEST[monitor]}: val {shown[monitor]}, weights in" in capsys.readouterr().out


def test_patience_waits_for_the_monitored_figure(tmp_path, capsys):
    start_log(None)
    run = make_checkpoints(tmp_path, patience=2, monitor="val_loss")
    run.trainer.stop_training = False
    for epoch, loss in enumerate((2.0, 1.5, 1.5, 1.75)):
        assert not run.trainer.stop_training
        run.on_epoch_end(epoch, {"val_loss": loss, "val_top1": 0.25 * epoch})
    assert run.trainer.stop_training
    assert "stopped early: no better val loss for patience=2 epochs" in capsys.readouterr().out
    run.finish_saving()


def test_a_run_goes_on_with_its_own_monitor_only_and_earlier_runs_had_top1(tmp_path):
    run = make_checkpoints(tmp_path)
    train_epochs(run, EPOCHS[:2])
    with pytest.raises(InputError, match=r"monitor=val_loss: val_top1 has chosen .*go on with monitor=val_top1, or"):
        make_checkpoints(tmp_path, monitor="val_loss").restore()
    # As versions before this key wrote it.
    path = best_weights(tmp_path)
    save_checkpoint(path, official_tensors(run.trainer.model), {"epoch": 2, "val_top1": 0.75})
    resumed = make_checkpoints(tmp_path)
    assert (resumed.restore(), epoch_of(resumed), resumed.best_value) == (2, 2, 0.75)


@pytest.mark.parametrize(("monitor", "better"), [("val_loss", BEST_CHECKPOINT), ("val_f1_macro", BEST_AVERAGE)])
def test_a_run_stands_for_the_weights_that_its_monitor_prefers(tmp_path, monitor, better):
    (tmp_path / "checkpoints").mkdir()
    tensors = official_tensors(build_model(SIZE, num_classes=3))
    for name, value, top1 in ((BEST_CHECKPOINT, 0.5, 0.75), (BEST_AVERAGE, 0.625, 0.25)):
        metadata = {"epoch": 1, "monitor": monitor, "val_top1": top1, monitor: value}
        save_checkpoint(best_weights(tmp_path, name), tensors, metadata)
    assert open_checkpoint(tmp_path).path == best_weights(tmp_path, better)


def test_an_epoch_prints_the_monitored_figure_and_top5_if_there_is_one(capsys):
    start_log(None)
    report = EpochReport(1, 4, 1, "val_f1_macro")
    report.model = make_checkpoints(Path("unused")).trainer
    report.on_epoch_begin(0)
    report.on_train_batch_end(0, {"loss": 1.5, "top1": 0.25})
    report.on_epoch_end(0, {"loss": 1.5, "top1": 0.25, "val_ema_f1_macro": 0.5, **EPOCHS[2]})
    (line,) = capsys.readouterr().out.splitlines()
    assert "top-1  25.0 %   val loss 2.000  top-1  75.0 %   macro F1 62.5 % (averaged 50.0 %)   " in line


def test_tensorboard_shows_the_best_monitored_figure(compose_train, tmp_path):
    log = TensorBoardLog(tmp_path / "run" / "tensorboard", compose_train("monitor=val_loss"), 0, None)
    log.on_train_begin()
    for epoch, loss in enumerate((2.0, 3.0, 1.5)):
        log.on_epoch_end(epoch, {"val_loss": loss, "val_ema_loss": 2.5, "val_top1": 0.5})
    log.on_train_end()
    assert figures(tmp_path / "run", "val/best_loss") == [(1, 2.0), (2, 2.0), (3, 1.5)]


def test_a_run_keeps_the_epoch_of_its_monitor_and_refuses_another_or_other_weights(start, tmp_path, capsys):  # noqa: F811
    words = ("monitor=val_loss", "loss.class_weights={dark:3}", "augment.balance=true", "optimizer.learning_rate=0.01")
    words += ("epochs=2", "logger.tensorboard=false")
    start(*words)
    rows = list(csv.DictReader((tmp_path / "run" / "history.csv").read_text().splitlines()))
    losses = [float(row["val_loss"]) for row in rows]
    metadata = read_metadata(tmp_path / "run")
    assert metadata["epoch"] == 1 + int(np.argmin(losses))
    assert metadata["val_loss"] == pytest.approx(min(losses))
    output = capsys.readouterr().out
    for line in (
        "val_loss, chooses the epoch with the best loss",
        "class weights (given): dark 1.5, bright 0.5",
        "each class equally",
    ):
        assert line in output
    with pytest.raises(InputError, match=r"configured otherwise: monitor: val_loss there, val_top1 here"):
        start(*words[1:], "resume=true")
    with pytest.raises(InputError, match=r"loss\.class_weights: \{'dark': 3\} there, \{'dark': 2\} here"):
        start(words[0], "loss.class_weights={dark:2}", *words[2:], "resume=true")


def test_a_monitor_that_does_not_exist_is_refused(compose_train):
    with pytest.raises(InputError, match=r"monitor=val_top5: one of auto, val_top1, val_map, val_f1_macro"):
        compose_train("monitor=val_top5")
