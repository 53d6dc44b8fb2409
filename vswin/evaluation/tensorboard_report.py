"""Put an evaluation beside the curves of the training run behind it; called by `vswin.evaluation.run`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from vswin.evaluation.highlights import CONFUSED_COLUMNS, Sample, list_confused
from vswin.evaluation.metrics import Metrics
from vswin.evaluation.report import Result, draw_confusion_matrix
from vswin.report.contact_sheet import Panel, draw_sheet, thumbnail
from vswin.runtime import logger
from vswin.schema import EvaluateConfig

_NUM_STILLS, _HEIGHT = 6, 112


def has_log(config: EvaluateConfig) -> bool:
    """Tells whether there is a training run with files of TensorBoard."""
    return config.run is not None and _folder(config).is_dir()


def log_to_tensorboard(config: EvaluateConfig, result: Result, samples: Sequence[Sample], epoch: int) -> None:
    """Logs under `test/...` what wandb is given; of the videos stills, as TensorBoard shows no films.

    A disk that does not take it ends nothing: the report is written.

    Args:
        config: whose `run` is a training run that logged for TensorBoard.
        result: the evaluation.
        samples: some of its videos.
        epoch: of the weights, counted from 1, which is the step.
    """
    try:
        writer = tf.summary.create_file_writer(str(_folder(config)))
        with writer.as_default(step=epoch):
            for key, value in _figures(result.metrics):
                tf.summary.scalar(key, value)
            matrix = tf.io.decode_png(draw_confusion_matrix(result), channels=3)
            tf.summary.image("test/confusion_matrix", matrix[tf.newaxis])
            tf.summary.text("test/confused_classes", _confused_classes(result))
            if samples:
                tf.summary.image("test/samples", _draw(samples)[np.newaxis])
        writer.close()
    except (OSError, tf.errors.OpError) as error:
        logger.info(f"TensorBoard: the evaluation was not taken ({error}); its report is complete")


def _folder(config: EvaluateConfig) -> Path:
    return Path(str(config.run), "tensorboard")


def _figures(metrics: Metrics) -> Iterator[tuple[str, float]]:
    """Yields each figure under its key, intervals by their ends."""
    for name, value in dataclasses.asdict(metrics).items():
        if isinstance(value, tuple):
            yield from zip((f"test/{name}/low", f"test/{name}/high"), value, strict=True)
        else:
            yield f"test/{name}", value


def _confused_classes(result: Result) -> str:
    """Writes the pairs of classes that were confused most often as a table in Markdown."""
    rows = [CONFUSED_COLUMNS, ("---",) * len(CONFUSED_COLUMNS), *list_confused(result)]
    return "\n".join("| " + " | ".join(str(cell).replace("|", r"\|") for cell in row) + " |" for row in rows)


def _draw(samples: Sequence[Sample]) -> np.ndarray:
    """Draws stills of videos below each other, uint8 [H, W, 3]."""
    panels = []
    for caption, frames in samples:
        numbers = np.linspace(0, len(frames) - 1, min(_NUM_STILLS, len(frames))).round().astype(int)
        panels.append(Panel(caption, [], [[thumbnail(frames[number], _HEIGHT) for number in numbers]]))
    return np.asarray(draw_sheet(panels))
