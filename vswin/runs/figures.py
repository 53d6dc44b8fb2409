"""The figures, settings and protocol of a run in words, for the terminal, the report page and `vswin compare`.

Files of other versions may hold anything; unknown values are left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vswin.config.schema import MONITORS
from vswin.console import count_of, printable
from vswin.runs.files import Run

# Keys that do not change results, and defaults that act only through the key of the same name elsewhere.
_LEFT_OUT = {
    *("output_dir", "resume", "dataset.cache_dir", "dataset.tfds_dir"),
    *("model.learning_rate", "model.weight_decay", "model.backbone_multiplier", "model.init_from"),
    *("dataset.epochs", "dataset.batch_size", "dataset.warmup_epochs", "dataset.crop_area"),
}
ABSENT = "-"
_VERSIONS = ("vswin", "tensorflow")
# Keys of an evaluation's protocol that are not settings, or have rows of their own.
_NO_SETTINGS = {"weights", "dataset", "decoder", "short_sides", "date", "model", *_VERSIONS}


def is_setting(key: str) -> bool:
    """Tells whether a key of a configuration can change the results of a run."""
    return key not in _LEFT_OUT and not key.startswith("logger.")


def format_value(value: Any) -> str:
    """Formats a value as on a command line."""
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case list():
            return f"[{','.join(map(format_value, value))}]"
    return str(value)


class Figures(NamedTuple):
    """The figures of a training run; accuracies are from validation, fractions 0..1; None means unknown."""

    epochs_done: int  # in history.csv
    epochs: int | None  # in the configuration
    best_top1: float | None = None  # of the best epoch; with the default monitor the highest
    best_epoch: int | None = None  # the first with the best figure of the weights or their average
    is_average: bool = False  # whether only the average of the weights reached it (optimizer.ema_decay)
    last_top1: float | None = None  # of the weights
    clips_per_sec: float | None = None  # median over the epochs, in training
    monitor: str = "val_top1"  # the figure that chose the best epoch
    best: float | None = None  # its value
    best_map: float | None = None  # with several labels: the mAP of the best epoch
    last_map: float | None = None


def sum_up(run: Run) -> Figures:
    """Collects the figures of a training run from its history."""
    epochs = (run.config or {}).get("epochs")
    epochs = epochs if isinstance(epochs, int) else None
    if run.history is None:
        return Figures(0, epochs)
    monitor = str((run.config or {}).get("monitor", "val_top1"))
    sign = -1 if monitor in MONITORS and MONITORS[monitor].better is min else 1
    best: float | None = None
    index, is_average = 0, False
    for prefix in ("val_", "val_ema_"):
        values = run.history.get(monitor.replace("val_", prefix, 1))
        if values is None or np.isnan(values).all():
            continue
        highest = int(np.nanargmax(sign * values))
        if best is None or sign * values[highest] > sign * best:
            best, index, is_average = float(values[highest]), highest, prefix == "val_ema_"
    prefix, speeds = "val_ema_" if is_average else "val_", run.history.get("clips_per_sec")
    best_top1, best_map = (
        None if best is None or values is None else float(values[index])
        for values in (run.history.get(prefix + "top1"), run.history.get(prefix + "map"))
    )
    last_top1, last_map = (
        None if values is None else float(values[-1])
        for values in (run.history.get("val_top1"), run.history.get("val_map"))
    )
    return Figures(
        int(run.history["epoch"][-1]),
        epochs,
        best_top1,
        None if best is None else int(run.history["epoch"][index]),
        is_average,
        last_top1=last_top1,
        best_map=best_map,
        last_map=last_map,
        clips_per_sec=None if speeds is None or np.isnan(speeds).all() else float(np.nanmedian(speeds)),
        monitor=monitor,
        best=best,
    )


class Difference(NamedTuple):
    """A setting and its value for each run, written as on a command line, or `ABSENT`."""

    key: str
    values: list[str]


def config_differences(runs: Sequence[Run]) -> list[Difference]:
    """Lists the configuration keys whose values differ among the runs that have a configuration."""
    configs = [run.config for run in runs]
    return [row for row in _differing(configs) if is_setting(row.key)]


def protocol_differences(runs: Sequence[Run]) -> list[Difference]:
    """Lists the settings that differ among the evaluations, including the name and the split of the data set."""
    protocols: list[dict[str, Any] | None] = []
    for run in runs:
        settings = {key: value for key, value in run.protocol.items() if key not in _NO_SETTINGS}
        named = {"dataset": run.test_set.get("name"), "split": run.test_set.get("split")}
        protocols.append(settings | named if run.protocol else None)
    return _differing(protocols, "test ")


def _differing(settings: Sequence[Mapping[str, Any] | None], prefix: str = "") -> list[Difference]:
    """Lists the keys whose values differ among the runs whose settings are known."""
    rows = []
    for key in dict.fromkeys(key for known in settings for key in known or ()):
        values = [ABSENT if known is None or key not in known else format_value(known[key]) for known in settings]
        if len({value for value, known in zip(values, settings, strict=True) if known is not None}) > 1:
            rows.append(Difference(prefix + key, values))
    return rows


def known_environment(runs: Sequence[Run]) -> list[Difference]:
    """Lists the known versions and devices, whether or not they differ."""
    rows = [Difference("devices of the training", [run.devices or ABSENT for run in runs])]
    for name in _VERSIONS:
        values = [format_value(run.protocol[name]) if name in run.protocol else ABSENT for run in runs]
        rows.append(Difference(f"{name} of the evaluation", values))
    return [row for row in rows if set(row.values) != {ABSENT}]


def percent(share: Any, digits: int = 1) -> str:
    """Formats a fraction as percent, e.g. "93.0 %"; a dash if there is none."""
    is_share = isinstance(share, int | float) and math.isfinite(share)
    return f"{100 * share:.{digits}f} %" if is_share else "-"


def format_interval(interval: Any, scale: float = 100, spec: str = ".1f") -> str:
    """Formats an interval of fractions in percent, e.g. "91.2 to 94.0"; empty if there is none."""
    match interval:
        case [int() | float() as low, int() | float() as high] if math.isfinite(low):
            return f"{scale * low:{spec}} to {scale * high:{spec}}"
    return ""


def format_speed(clips_per_sec: float) -> str:
    """Formats a throughput with three digits, or as a whole number from 100 on."""
    return f"{clips_per_sec:,.0f}" if clips_per_sec >= 100 else f"{clips_per_sec:.3g}"


def difference_points(measured: float, published: float) -> float:
    """Returns measured minus published accuracy, both fractions, in percentage points rounded to hundredths."""
    return round(100 * measured - 100 * published, 2)


def accuracy_table(metrics: Mapping[str, Any]) -> list[list[str]]:
    """Lists the figures of `metrics.json` beside the published ones, if there are any: headings, then rows."""
    published = metrics.get("published")
    published = published if isinstance(published, dict) and published.get("name") else {}
    rows = [["Figure", "measured", "95 % interval", *(["published", "difference", "verdict"] if published else [])]]
    for key, name in (
        ("map", "mAP"),
        ("top1", "top-1"),
        ("top5", "top-5"),
        ("mean_class_accuracy", "mean class accuracy"),
        ("clip_top1", "clip top-1 (views by themselves)"),
        ("clip_top5", "clip top-5 (views by themselves)"),
        ("f1_micro", "micro F1"),
        ("f1_macro", "macro F1"),
        ("precision_micro", "micro precision"),
        ("recall_micro", "micro recall"),
        ("precision_macro", "macro precision"),
        ("roc_auc", "ROC-AUC"),
        ("average_precision", "average precision (second class)"),
        ("calibration_error", "calibration error"),
        ("log_loss", "log loss"),
    ):
        if key not in metrics:
            continue
        measured, reference, interval = metrics[key], published.get(key), metrics.get(f"{key}_interval")
        rows.append([name, percent(measured, 2), format_interval(interval)])
        if key == "log_loss" and isinstance(measured, int | float):
            rows[-1][1:] = [f"{measured:.3f}", format_interval(interval, 1, ".3f")]
        if isinstance(reference, int | float) and isinstance(measured, int | float):
            verdict = printable(str(published.get(f"{key}_verdict", "")))
            rows[-1] += [percent(reference), f"{difference_points(measured, reference):+.2f}", verdict]
        elif published:
            rows[-1] += ["", "", ""]
    return rows


def describe_views(protocol: Mapping[str, Any]) -> dict[str, str]:
    """Describes the views of a video, their frames and their pixels, as far as they are known.

    `protocol` has the keys of `clip.*`, and `average` if the views are averaged.
    """
    known = {key: value for key, value in protocol.items() if isinstance(value, int) and value}
    is_dense = protocol.get("sampling") == "dense"
    words = {}
    if {"num_clips", "num_crops"} <= set(known):
        words["views"] = f"{count_of(known['num_clips'], 'clip')} x {count_of(known['num_crops'], 'crop')}"
        if is_dense and protocol.get("spacing") == "end_to_end":
            words["views"] += ", clips end to end"
        average = {"prob": "probabilities averaged", "score": "logits averaged"}.get(str(protocol.get("average")))
        words["views"] += f", {average}" if average else ""
    if "num_frames" in known:
        stride = known.get("frame_stride")
        in_a_row = "in a row" if stride == 1 else f"with stride {stride}"
        frames = count_of(known["num_frames"], "frame")
        words["frames"] = f"{frames} {in_a_row if is_dense else 'from equal parts of the video'}"
    if {"resize", "crop"} <= set(known):
        words["pixels"] = f"short side {known['resize']}, {known['crop']} x {known['crop']} px"
    return words


def describe_seen(test_set: Mapping[str, Any]) -> str:
    """Tells whether the tested videos, `protocol.dataset` of `metrics.json`, trained the model or chose its epoch."""
    match test_set.get("trained_on"), test_set.get("chose_epoch"):
        case True, _:
            return "the model was trained on some of these videos; accuracy on new videos would be lower"
        case _, True:
            return "these videos also chose the epoch; accuracy on a separate test set would be lower"
        case False, False:
            return "these videos neither trained the model nor chose the epoch"
    return ""
