"""The logs of a run besides what it prints, as `logger.*` asks for them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import tf_keras as keras

from vswin.evaluation.loggers import Sample
from vswin.schema import TrainConfig
from vswin.training.history import HistoryFile
from vswin.training.tensorboard_log import TensorBoardLog


@contextmanager
def open_loggers(
    config: TrainConfig,
    folder: Path,
    first_epoch: int,
    best_top1: float = -1.0,
    is_chief: bool = True,
    predict_samples: Callable[[], Sequence[Sample]] = tuple,
) -> Iterator[list[keras.callbacks.Callback]]:
    """Opens the logs of a run, and closes those that need it however training ends.

    Args:
        config: the run.
        folder: its folder.
        first_epoch: epoch that this session starts with, counted from 0.
        best_top1: highest top-1 in validation before it; below 0 for none.
        is_chief: whether this process writes the files of the run; without, there are no logs.
        predict_samples: gives validation videos with what is predicted of them, for wandb at the end of the run.

    Yields:
        A callback for each.
    """
    if not is_chief:
        yield []
        return
    with ExitStack() as stack:
        loggers: list[keras.callbacks.Callback] = []
        earlier: list[dict[str, str | float]] = []
        if config.logger.csv:
            history = HistoryFile(folder / "history.csv", first_epoch)
            earlier = list(history.rows)
            loggers.append(history)
        if config.logger.tensorboard:
            loggers.append(TensorBoardLog(folder / "tensorboard", config, first_epoch, best_top1))
        if config.logger.wandb:
            # Seconds that only those who use it should wait.
            from vswin.training.wandb_log import open_wandb

            loggers.append(stack.enter_context(open_wandb(config, folder, predict_samples, earlier)))
        yield loggers
