"""What a run writes for TensorBoard, read back as TensorBoard reads it."""

import time
from pathlib import Path

import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.get_experiment import Handler as GetExperiment
from tensorboard.plugins.hparams.list_session_groups import Handler as ListSessionGroups

from vswin.training.loggers import TensorBoardLog


def figures(folder: Path, key: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return [(event.step, float(tf.make_ndarray(event.tensor_proto))) for event in events.Tensors(key)]


@pytest.fixture
def start(compose_train, tmp_path):
    """Begins a session of a run with some epoch, counted from 0."""

    def started(first_epoch: int, *overrides: str, best_top1: float = -1.0, run: str = "run") -> TensorBoardLog:
        log = TensorBoardLog(tmp_path / run / "tensorboard", compose_train(*overrides), first_epoch, best_top1)
        log.on_train_begin()
        return log

    return started


def wait_for_next_second() -> None:
    """Event files are read in the order of their names, which say the second they are of."""
    now = int(time.time())
    while int(time.time()) == now:
        time.sleep(0.01)


def test_epochs_that_come_again_after_a_kill_show_once(start, tmp_path):
    killed = start(0)
    for epoch, loss in enumerate((4.0, 3.0, 2.0)):
        killed.on_epoch_end(epoch, {"loss": loss, "val_top1": 0.5})
    wait_for_next_second()
    resumed = start(1)
    assert figures(tmp_path / "run", "train/loss") == [(1, 4.0)]
    for epoch, loss in ((1, 3.5), (2, 2.5), (3, 1.5)):
        resumed.on_epoch_end(epoch, {"loss": loss, "val_top1": 0.75})
    resumed.on_train_end()
    assert figures(tmp_path / "run", "train/loss") == [(1, 4.0), (2, 3.5), (3, 2.5), (4, 1.5)]
    assert figures(tmp_path / "run", "val/top1") == [(1, 0.5), (2, 0.75), (3, 0.75), (4, 0.75)]


def test_a_session_that_goes_on_after_what_was_logged_drops_nothing(start, tmp_path):
    for epoch in (0, 1):
        wait_for_next_second()
        log = start(epoch)
        log.on_epoch_end(epoch, {"loss": 2.0 - epoch})
        log.on_train_end()
    assert figures(tmp_path / "run", "train/loss") == [(1, 2.0), (2, 1.0)]


def ask_for_settings(folder: Path) -> tuple[api_pb2.Experiment, dict[str, api_pb2.SessionGroup]]:
    """Asks TensorBoard what its tab HPARAMS shows of the runs in a folder: its columns, and the row of each run."""
    runs = EventMultiplexer().AddRunsFromDirectory(str(folder)).Reload()
    context = Context(TBContext(data_provider=MultiplexerDataProvider(runs, str(folder))))
    columns = GetExperiment(RequestContext(), context, "", api_pb2.GetExperimentRequest(include_metrics=True)).run()
    metrics = [api_pb2.ColParams(metric=info.name) for info in columns.metric_infos]
    every = [api_pb2.STATUS_UNKNOWN, api_pb2.STATUS_RUNNING, api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE]
    request = api_pb2.ListSessionGroupsRequest(
        allowed_statuses=every, col_params=metrics, slice_size=10, include_metrics=True
    )
    rows = ListSessionGroups(RequestContext(), context, "", request).run()
    return columns, {group.name: group for group in rows.session_groups}


def test_runs_of_a_sweep_stand_side_by_side_with_their_settings_and_best_figures(start, tmp_path):
    sweep = {"fast": ("0.002", (0.25, 0.75, 0.5), "null"), "slow": ("0.001", (0.5, 0.25), "40.0")}
    for run, (rate, top1s, clip_norm) in sweep.items():
        overrides = (f"optimizer.learning_rate={rate}", f"optimizer.clip_norm={clip_norm}", "output_dir=elsewhere")
        log = start(0, *overrides, run=run)
        for epoch, top1 in enumerate(top1s):
            log.on_epoch_end(epoch, {"loss": 1.0, "val_top1": top1})
        if run == "fast":
            log.on_train_end()
    columns, rows = ask_for_settings(tmp_path)
    names = {info.name for info in columns.hparam_infos}
    assert {"model.name", "optimizer.learning_rate", "batch_size", "augment.flip", "seed", "clip.crop"} <= names
    assert {"output_dir", "logger.csv", "resume"} & names == set()
    fast, slow = (rows[str(tmp_path / run)] for run in sweep)
    assert len(rows) == 2
    rates = [row.hparams["optimizer.learning_rate"].number_value for row in (fast, slow)]
    assert rates == [0.002, 0.001]
    assert fast.hparams["model.name"].string_value == "swin_micro"
    assert fast.hparams["augment.color_jitter"].string_value == "[0.0,0.0,0.0,0.0]"
    assert fast.hparams["dataset.allow_flip"].bool_value is False
    assert "optimizer.clip_norm" not in fast.hparams
    assert slow.hparams["optimizer.clip_norm"].number_value == 40.0
    best = [{metric.name.tag: metric.value for metric in row.metric_values}["val/best_top1"] for row in (fast, slow)]
    assert best == [0.75, 0.5]
    assert fast.sessions[0].status == api_pb2.STATUS_SUCCESS
    assert slow.sessions[0].status == api_pb2.STATUS_UNKNOWN


def test_the_best_goes_on_where_an_earlier_session_ended_and_knows_averages(start, tmp_path):
    log = start(3, best_top1=0.5)
    log.on_epoch_end(3, {"val_top1": 0.25})
    log.on_epoch_end(4, {"val_top1": 0.25, "val_ema_top1": 0.625})
    log.on_train_end()
    assert figures(tmp_path / "run", "val/best_top1") == [(4, 0.5), (5, 0.625)]
