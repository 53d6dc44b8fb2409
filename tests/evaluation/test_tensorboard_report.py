"""Evaluations that join the TensorBoard files of their training run, read as TensorBoard reads them."""

import cv2
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

from tests.conftest import spread
from vswin.config.load import save_config
from vswin.data.decode import VIDEO_FILES
from vswin.evaluation.loggers import has_log, log_to_tensorboard, read_samples
from vswin.evaluation.report import Result
from vswin.runs.metrics import compute_metrics
from vswin.runs.plots import draw_confusion_matrix
from vswin.runtime import start_log
from vswin.training.loggers import TensorBoardLog

NAMES = ["bright", "dark | night"]


@pytest.fixture
def run(compose_train, tmp_path):
    """A training run of two epochs."""
    folder = tmp_path / "my run"
    log = TensorBoardLog(folder / "tensorboard", compose_train(), 0, None)
    log.on_train_begin()
    for epoch in (0, 1):
        log.on_epoch_end(epoch, {"val_top1": 0.25})
    log.on_train_end()
    save_config(compose_train(), folder / "config.yaml")
    return folder


@pytest.fixture
def result(small_videos) -> Result:
    """Two bright videos, one predicted as dark, and two dark videos, one of which is bad."""
    labels, predicted = np.array([0, 0, 1, 1]), np.array([0, 1, 1, -1])
    ranked = np.stack([predicted, np.where(predicted < 0, -1, 1 - predicted)], axis=1)
    probabilities = spread(ranked, np.tile([0.625, 0.375], (4, 1)), 2)
    metrics = compute_metrics(probabilities, labels, np.ones((4, 2), int), 2)
    paths = [str(small_videos / name / f"{number}.avi") for name in ("bright", "dark") for number in (0, 1)]
    return Result(paths, labels, probabilities, NAMES, metrics)


def read(folder) -> EventAccumulator:
    return EventAccumulator(str(folder / "tensorboard")).Reload()


def test_an_evaluation_has_its_figures_at_the_epoch_of_its_weights(run, result, compose_evaluate):
    config = compose_evaluate(f"run='{run}'")
    assert config.tensorboard
    assert has_log(config)
    assert not has_log(compose_evaluate("dataset=motion"))
    log_to_tensorboard(config, result, [], 2)
    events = read(run)
    figures = {
        tag.removeprefix("test/"): [(event.step, tf.make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)]
        for tag in events.PluginTagToContent("scalars")
        if tag.startswith("test/")
    }
    low, high = result.metrics.top1_interval
    expected = {"top1": 0.5, "balanced_accuracy": 0.5, "num_videos": 4.0, "num_bad_videos": 1.0}
    expected |= {"top1_interval/low": pytest.approx(low), "top1_interval/high": pytest.approx(high)}
    assert {key: figures[key] for key in expected} == {key: [(2, value)] for key, value in expected.items()}
    assert {"f1_macro", "log_loss", "calibration_error", "roc_auc", "average_precision"} < figures.keys()
    assert not {"top5", "clip_top5"} & figures.keys()
    assert len(events.Tensors("val/top1")) == 2
    assert "test/samples" not in events.Tags()["tensors"]
    (table,) = events.Tensors("test/confused_classes")
    assert tf.make_ndarray(table.tensor_proto).item().decode().splitlines() == [
        "| class | predicted | videos |",
        "| --- | --- | --- |",
        r"| bright | dark \| night | 1 |",
    ]


def read_image(events: EventAccumulator, tag: str) -> np.ndarray:
    (event,) = events.Tensors(tag)
    width, height, *images = tf.make_ndarray(event.tensor_proto)
    (image,) = [tf.io.decode_png(image).numpy() for image in images]
    assert image.shape == (int(height), int(width), 3)
    return image


def test_the_confusion_matrix_is_that_of_the_report_and_samples_have_captions_and_stills(run, result, compose_evaluate):
    log_to_tensorboard(compose_evaluate(f"run='{run}'"), result, list(read_samples(result, VIDEO_FILES)), 2)
    events = read(run)
    png = draw_confusion_matrix(result.labels, result.ranked[:, 0], NAMES)
    drawn = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(read_image(events, "test/confusion_matrix"), drawn)

    # Three videos have a prediction; each has a caption and a row of stills, in shades of gray by their level.
    sheet = read_image(events, "test/samples")
    assert sheet.shape[0] > 3 * 112
    column = sheet[:, 76].astype(int)  # through the first still of each row
    for level in (200, 204, 40):
        assert (np.abs(column - level).max(axis=1) <= 3).sum() > 80


def test_files_that_cannot_be_written_end_no_evaluation(run, result, compose_evaluate, capsys):
    start_log(None)
    config = compose_evaluate(f"run='{run}'")
    for file in (run / "tensorboard").iterdir():
        file.unlink()
    (run / "tensorboard").rmdir()
    (run / "tensorboard").write_text("no folder")
    capsys.readouterr()
    log_to_tensorboard(config, result, [], 2)
    output = capsys.readouterr().out
    assert output.startswith("TensorBoard: the evaluation was not taken (")
    assert output.endswith("); its report is complete\n")
