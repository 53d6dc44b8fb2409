import csv
import io
from types import SimpleNamespace

import pytest
import tf_keras as keras
from rich.console import Console

from vswin.data.bad_videos import BadVideos
from vswin.errors import InputError
from vswin.runtime import start_log
from vswin.training import callbacks
from vswin.training.callbacks import BadVideoGuard, EpochReport
from vswin.training.groups import ParameterGroup
from vswin.training.optimizer import AdamW

LOGS = {"loss": 1.5, "top1": 0.25, "top5": 0.75, "val_loss": 1.25, "val_top1": 0.5, "val_top5": 1.0}


@pytest.fixture
def report() -> EpochReport:
    callback = EpochReport(steps_per_epoch=4, num_clips=30, epochs=12)
    callback.model = keras.Sequential([keras.layers.Dense(1)])
    callback.model.compile(optimizer=keras.optimizers.SGD(0.125))
    callback.on_train_begin()
    return callback


def run_epoch(report: EpochReport, epoch: int) -> dict[str, float]:
    start_log(None)
    report.on_epoch_begin(epoch)
    for step in range(4):
        report.on_train_batch_end(step, LOGS)
    report.on_test_begin()
    logs = dict(LOGS)
    report.on_epoch_end(epoch, logs)
    return logs


def test_an_epoch_ends_with_one_line_in_percent(report, capsys):
    run_epoch(report, 8)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(
        "epoch  9/12  train loss 1.500  top-1  25.0 %  top-5  75.0 %   val loss 1.250  top-1  50.0 %"
    )
    assert line.endswith("left")


def test_long_epochs_print_lines_without_a_terminal(report, capsys, monkeypatch):
    monkeypatch.setattr(callbacks, "SECONDS_BETWEEN_LINES", 0.0)
    run_epoch(report, 0)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert lines[1].startswith("epoch  1/12  step 2/4  loss 1.500  top-1 25.0 %")


def test_rate_and_speed_are_added_to_the_logs(report):
    logs = run_epoch(report, 0)
    assert logs["learning_rate"] == 0.125
    assert logs["clips_per_sec"] > 0


def test_the_speed_of_an_epoch_that_went_on_in_its_middle_is_that_of_its_steps(report, monkeypatch):
    """Its first two steps belong to an earlier session: here, two steps of 7.5 clips take 3 seconds."""
    clock = iter([10.0, 11.0, 13.0, 14.0])
    monkeypatch.setattr(callbacks, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    report.on_epoch_begin(0)
    report.on_train_batch_end(2, LOGS)
    report.on_train_batch_end(3, LOGS)
    logs = dict(LOGS)
    report._run_started = 10.0
    report.on_epoch_end(0, logs)
    assert logs["clips_per_sec"] == 5.0


def test_the_rate_of_every_group_is_logged(report):
    """The topmost layer's where layers differ; `learning_rate` is the base of them all, not the backbone's."""
    groups = {"a": ParameterGroup("head", 1.0, 0.0), "b": ParameterGroup("bias tables", 0.5, 0.0)}
    groups |= {"c": ParameterGroup("backbone", 0.05, 0.0), "d": ParameterGroup("backbone", 0.1, 0.0)}
    for optimizer in (AdamW(0.5, groups), keras.mixed_precision.LossScaleOptimizer(AdamW(0.5, groups))):
        report.model.compile(optimizer=optimizer)
        logs = run_epoch(report, 0)
        rates = {key: value for key, value in logs.items() if key.startswith("l") and key not in ("loss", "loss_scale")}
        assert rates == pytest.approx(
            {"learning_rate": 0.5, "lr_head": 0.5, "lr_bias_tables": 0.25, "lr_backbone": 0.05}
        )


def test_averaged_weights_have_their_figure_in_the_line(report, capsys, monkeypatch):
    monkeypatch.setitem(LOGS, "val_ema_top1", 0.625)
    run_epoch(report, 0)
    assert "val loss 1.250  top-1  50.0 %  top-5 100.0 %   averaged top-1  62.5 %   " in capsys.readouterr().out


def test_a_loss_scale_is_shown_and_logged(report, capsys):
    scaled = keras.mixed_precision.LossScaleOptimizer(keras.optimizers.SGD(0.125), initial_scale=256.0)
    report.model.compile(optimizer=scaled)
    assert run_epoch(report, 0)["loss_scale"] == 256.0
    assert "loss scale 256  " in capsys.readouterr().out


def test_without_loss_scaling_there_is_no_scale(report):
    assert "loss_scale" not in run_epoch(report, 0)


def test_a_terminal_gets_its_cursor_back_when_training_fails(monkeypatch):
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, force_interactive=True)
    monkeypatch.setattr(callbacks, "console", terminal)
    report = EpochReport(steps_per_epoch=4, num_clips=30, epochs=12)

    def train() -> None:
        with report:
            report.on_epoch_begin(0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
    hidden, shown = "\x1b[?25l", "\x1b[?25h"
    assert hidden in screen.getvalue()
    assert screen.getvalue().rindex(shown) > screen.getvalue().rindex(hidden)


def test_bad_videos_are_listed_when_they_grow_in_number(tmp_path, capsys):
    start_log(None)
    bad, path = BadVideos(), tmp_path / "bad_videos.csv"
    guard = BadVideoGuard(bad, path, num_videos=10, max_bad_share=0.2)
    guard.on_epoch_end(0, {})
    assert not path.exists()
    bad.add("a.avi", "truncated")
    guard.on_epoch_end(1, {})
    guard.on_epoch_end(2, {})
    assert capsys.readouterr().out.count("1 of 10 videos could not be decoded so far (1 truncated)") == 1
    assert [row["path"] for row in csv.DictReader(path.read_text().splitlines())] == ["a.avi"]


def test_too_many_bad_videos_stop_the_run_after_listing_them(tmp_path):
    bad, path = BadVideos(), tmp_path / "bad_videos.csv"
    for name in ("a", "b", "c"):
        bad.add(name, "empty")
    with pytest.raises(InputError, match=r"3 of 10 videos .* \(3 empty\).* dataset\.max_bad_share=0\.2"):
        BadVideoGuard(bad, path, num_videos=10, max_bad_share=0.2).on_epoch_end(0, {})
    assert len(path.read_text().splitlines()) == 4
