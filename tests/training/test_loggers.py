"""The logs of a run: its history, TensorBoard as TensorBoard reads it, and wandb's samples."""

import resource
import sys
import time
from pathlib import Path

import numpy as np
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

import vswin
from vswin.data.catalog import Catalog
from vswin.data.frames import FrameLoader
from vswin.data.samples import Sample
from vswin.models.zoo import ModelSize
from vswin.training.loggers import HistoryFile, TensorBoardLog, open_loggers, predict_clips, standard_keys


def test_the_configuration_chooses_the_logs_of_the_chief(compose_train, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # not imported unless it is asked for
    with open_loggers(compose_train(), tmp_path, 0) as callbacks:
        assert [type(callback) for callback in callbacks] == [HistoryFile, TensorBoardLog]
    with open_loggers(compose_train("logger.csv=false", "logger.tensorboard=false"), tmp_path, 0) as callbacks:
        assert callbacks == []
    with open_loggers(compose_train("logger=wandb"), tmp_path, 0, is_chief=False) as callbacks:
        assert callbacks == []
    assert list(tmp_path.iterdir()) == []


def test_every_epoch_is_a_row_and_those_that_were_not_saved_come_again(tmp_path):
    path = tmp_path / "history.csv"
    first = HistoryFile(path, 0)
    for epoch in range(3):
        first.on_epoch_end(epoch, {"loss": 10.0 + epoch, "gone": 2.0})
    assert path.read_text() == "epoch,loss,gone\n0,10.0,2.0\n1,11.0,2.0\n2,12.0,2.0\n"
    HistoryFile(path, 2).on_epoch_end(2, {"loss": 20.0, "new": 4.0})
    assert path.read_text() == "epoch,loss,new\n0,10.0,\n1,11.0,\n2,20.0,4.0\n"


def test_a_row_that_cannot_be_written_leaves_the_earlier_ones(tmp_path):
    path = tmp_path / "history.csv"
    history = HistoryFile(path, 0)
    history.on_epoch_end(0, {"loss": 1.0})
    before = path.read_text()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 3, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            history.on_epoch_end(1, {"loss": 2.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == before
    assert list(tmp_path.iterdir()) == [path]


def test_every_figure_of_an_epoch_has_its_name():
    logs = {"loss": 1.5, "top1": np.float32(0.25), "value": 3.0, "val_loss": 2, "val_ema_top1": 0.75, "val_val_x": 5.0}
    named = standard_keys(logs)
    assert list(named.items()) == [
        ("train/loss", 1.5),
        ("train/top1", 0.25),
        ("train/value", 3.0),
        ("val/loss", 2.0),
        ("val/ema_top1", 0.75),
        ("val/val_x", 5.0),
    ]
    assert {type(value) for value in named.values()} == {float}


def figures(folder: Path, key: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return [(event.step, float(tf.make_ndarray(event.tensor_proto))) for event in events.Tensors(key)]


@pytest.fixture
def start(compose_train, tmp_path):
    """Begins a session of a run at any epoch, counted from 0."""

    def started(first_epoch: int, *overrides: str, best: float | None = None, run: str = "run") -> TensorBoardLog:
        log = TensorBoardLog(tmp_path / run / "tensorboard", compose_train(*overrides), first_epoch, best)
        log.on_train_begin()
        return log

    return started


def wait_for_next_second() -> None:
    """TensorBoard reads event files in the order of their names, which contain the second."""
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


def ask_for_settings(folder: Path) -> tuple[api_pb2.Experiment, dict[str, api_pb2.SessionGroup]]:
    """Asks TensorBoard for the HPARAMS tab of the runs in a folder: its columns, and the row of each run."""
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
    log = start(3, best=0.5)
    log.on_epoch_end(3, {"val_top1": 0.25})
    log.on_epoch_end(4, {"val_top1": 0.25, "val_ema_top1": 0.625})
    log.on_train_end()
    assert figures(tmp_path / "run", "val/best_top1") == [(4, 0.5), (5, 0.625)]


SIZE = ModelSize(embed_dim=8, depths=(1, 1), num_heads=(1, 2), patch_size=(2, 4, 4), window_size=(2, 2, 2))


@pytest.fixture
def catalog(small_videos) -> Catalog:
    """Four bright videos, one of which is missing, and three dark ones."""
    paths = [*(small_videos / "bright" / f"{number}.avi" for number in range(4))]
    paths += [small_videos / "dark" / f"{number}.avi" for number in range(3)]
    paths[1] = paths[1].with_name("gone.avi")
    videos = [Sample(str(path), (int(path.parent.name == "dark"),)) for path in paths]
    return Catalog(("bright", "dark"), [], videos)


@pytest.mark.parametrize("strategy", [tf.distribute.get_strategy, tf.distribute.MirroredStrategy])
def test_captions_are_what_the_model_says_of_the_clip_of_validation(catalog, compose_train, strategy):
    clip = compose_train("clip.num_frames=4", "clip.resize=36", "clip.crop=32", "clip.num_clips=2").clip
    with strategy().scope():
        model = vswin.build_model(SIZE, num_classes=2)
    samples = predict_clips(model, catalog, clip, FrameLoader())
    readable = [video for video in catalog.val if "gone" not in video.path]
    assert len(samples) == len(readable) == 6
    for sample, video in zip(samples, readable, strict=True):
        views = vswin.load_views(video.path, 4, clip.frame_stride, 1, 1, 36, 32)
        np.testing.assert_array_equal(sample.frames, views[0])
        first, second = tf.nn.softmax(model(views)).numpy()[0]
        said, probability = ("bright", first) if first > second else ("dark", second)
        label = catalog.class_names[video.label]
        assert sample.caption == f"{label}, predicted {said} ({100 * probability:.1f} %)"


def test_large_clips_are_reduced_and_no_more_than_eight_videos_are_shown(catalog, compose_train):
    clip = compose_train("clip.num_frames=4", "clip.resize=160", "clip.crop=160").clip
    many = Catalog(catalog.class_names, [], catalog.val[:1] * 20)
    samples = predict_clips(vswin.build_model(SIZE, num_classes=2), many, clip, FrameLoader())
    assert [sample.frames.shape for sample in samples] == [(4, 128, 128, 3)] * 8
