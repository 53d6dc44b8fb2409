"""Finds the published accuracy to compare a measurement with, and judges the measurement by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vswin.config.schema import ClipConfig
from vswin.console import count_of
from vswin.data.class_names import official_counts
from vswin.errors import InputError
from vswin.runs.figures import difference_points
from vswin.runs.metrics import Metrics
from vswin.runs.multi_label import MultiLabelMetrics
from vswin.weights.published import PublishedModel, find_published

TOLERANCE_POINTS = 0.5

# Some validation videos have vanished from the internet, so a copy may hold fewer videos. A list with less than this
# fraction of them is a selection.
_SMALLEST_SHARE = 0.9


@dataclass(frozen=True)
class Comparison:
    """The published row to compare a measurement with, or the reason why there is none.

    `note` tells where the TF-Hub page differs from the official table; empty if it does not.
    """

    published: PublishedModel | None
    reason: str = ""
    note: str = ""


def compare(init_from: str, dataset: str, clip: ClipConfig, average: str, num_videos: int) -> Comparison:
    """Finds the published row with these weights, this data set and this test protocol.

    A selection of the validation set is compared with nothing.
    """
    try:
        model = find_published(init_from)
    except InputError:
        return Comparison(None, f"{init_from} is not the name of a published model")
    if dataset != model.dataset:
        return Comparison(None, f"{model.name} was tested on {model.dataset}, not on {dataset}")
    differences = _protocol_differences(model, clip, average)
    if differences:
        return Comparison(None, f"the published protocol has {', '.join(differences)}")
    counts = official_counts(model.dataset, split=1)
    assert counts is not None, model.dataset
    if num_videos < _SMALLEST_SHARE * counts["val"]:
        return Comparison(None, f"{count_of(num_videos, 'video')} of the {counts['val']:,} in the validation set")
    # Accuracies are compared with the official values; the note names where the TF-Hub page differs.
    page, notes = model.hub_page, []
    if page is not None:
        for name, hub, official in (("top-1", page.top1, model.top1), ("top-5", page.top5, model.top5)):
            if hub != official:
                notes.append(f"{hub} % {name} (official: {official} %)")
        if page.name != model.name:
            notes.append(f"the name {page.name}")
    return Comparison(model, note=f"the TF-Hub page gives {' and '.join(notes)}: {page.why}" if page and notes else "")


def verdict(measured: float, published: float, interval: tuple[float, float]) -> str:
    """Judges a measured accuracy and its confidence interval by a published accuracy; all are fractions 0..1.

    The verdict is "within ±0.5 points"; or "below" or "above" if the whole interval is outside this tolerance; or
    "below" or "above" with the note that there are too few videos to tell.
    """
    points = difference_points(measured, published)
    if abs(points) <= TOLERANCE_POINTS:
        return f"within ±{TOLERANCE_POINTS} points"
    low, high = (difference_points(end, published) for end in interval)
    word = "below" if points < 0 else "above"
    is_possible = low <= TOLERANCE_POINTS and high >= -TOLERANCE_POINTS
    return f"{word}, but too few videos to tell" if is_possible else word


def summarise(metrics: Metrics | MultiLabelMetrics, comparison: Comparison) -> dict[str, Any]:
    """Returns the figures of an evaluation, and under `published` the published ones, as in `metrics.json`."""
    published = comparison.published
    if published is None or isinstance(metrics, MultiLabelMetrics):
        return {**metrics.shown(), "published": {"name": None, "reason": comparison.reason}}
    entry: dict[str, Any] = {"name": published.name}
    for name in ("top1", "top5"):
        share = getattr(published, name) / 100
        entry[name] = share
        entry[f"{name}_verdict"] = verdict(getattr(metrics, name), share, getattr(metrics, f"{name}_interval"))
    return {**metrics.shown(is_published=True), "published": entry}


def _protocol_differences(model: PublishedModel, clip: ClipConfig, average: str) -> list[str]:
    """Lists `key=value` that `clip` lacks; source: Video-Swin-Transformer configs/recognition/swin, test_pipeline."""
    num_clips, num_crops = (int(count) for count in model.test_views.split("x"))
    expected = {"num_frames": 32, "frame_stride": 2, "sampling": "dense", "spacing": "centred"}
    expected |= {"resize": 224, "crop": 224, "num_clips": num_clips, "num_crops": num_crops}
    if model.dataset == "sthv2":
        # Segments cover the whole video, whatever the stride.
        expected["sampling"] = "segments"
        del expected["frame_stride"], expected["spacing"]
    actual = vars(clip)
    differing = [f"clip.{key}={value}" for key, value in expected.items() if actual[key] != value]
    return differing + (["average=prob"] if average != "prob" else [])
