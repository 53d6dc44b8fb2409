"""Find the published accuracy that a measurement may be compared with; called by `vswin.evaluation.run`."""

from __future__ import annotations

from dataclasses import dataclass

from vswin.data.class_names import official_counts
from vswin.errors import InputError
from vswin.published import PublishedModel, find_published
from vswin.schema import ClipConfig
from vswin.wording import count_of

TOLERANCE_POINTS = 0.5

# Some videos of a validation set have vanished from the net since, so a copy may hold fewer, but a list with less
# than this share of them is a selection.
_SMALLEST_SHARE = 0.9


@dataclass(frozen=True)
class Comparison:
    """Name the published row to stand beside a measurement, or say why none does.

    Attributes:
        published: The row; None if there is no published number for this measurement.
        reason: Why there is none; empty if there is one.
        note: Where the TF-Hub page differs from the official table; empty if it does not.
    """

    published: PublishedModel | None
    reason: str = ""
    note: str = ""


def compare(init_from: str, dataset: str, clip: ClipConfig, average: str, num_videos: int) -> Comparison:
    """Looks for the published row with this model, this data set and this test protocol.

    Args:
        init_from: Where the weights come from: a published name, or a path (which has no published row).
        dataset: Name of the data set.
        clip: How videos became views.
        average: How the predictions of views became one.
        num_videos: Videos evaluated; a selection of the validation set compares with nothing.

    Returns:
        The row, or the reason why there is none.
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
    full_count = counts["val"]
    if num_videos < _SMALLEST_SHARE * full_count:
        return Comparison(None, f"{count_of(num_videos, 'video')} of the {full_count:,} in the validation set")
    return Comparison(model, note=_hub_note(model))


def difference_points(measured: float, published: float) -> float:
    """Subtracts a published accuracy from a measured one.

    Args:
        measured: Fraction, 0..1.
        published: Percent.

    Returns:
        Percentage points, rounded to hundredths.
    """
    return round(100 * measured - published, 2)


def verdict(measured: float, published: float, interval: tuple[float, float]) -> str:
    """Judges a measured accuracy by a published one.

    Args:
        measured: Fraction, 0..1.
        published: Percent.
        interval: Between which fractions the true value lies.

    Returns:
        "within ±0.5 points"; "below" or "above" if no value in the interval is; else that there are too few videos
        to tell.
    """
    points = difference_points(measured, published)
    if abs(points) <= TOLERANCE_POINTS:
        return f"within ±{TOLERANCE_POINTS} points"
    low, high = (difference_points(end, published) for end in interval)
    if low <= TOLERANCE_POINTS and high >= -TOLERANCE_POINTS:
        return f"{'below' if points < 0 else 'above'}, but too few videos to tell"
    return "below" if points < 0 else "above"


def _protocol_differences(model: PublishedModel, clip: ClipConfig, average: str) -> list[str]:
    """Lists the settings of the published test that this one does not have, as `key=value`.

    Source: Video-Swin-Transformer configs/recognition/swin, test_pipeline of the Kinetics and of the
        Something-Something configurations.
    """
    num_clips, num_crops = (int(count) for count in model.test_views.split("x"))
    expected = {
        "num_frames": 32,
        "frame_stride": 2,
        "sampling": "dense",
        "spacing": "centred",
        "resize": 224,
        "crop": 224,
        "num_clips": num_clips,
        "num_crops": num_crops,
    }
    if model.dataset == "sthv2":
        # Segments cover the whole video, whatever the stride.
        expected["sampling"] = "segments"
        del expected["frame_stride"], expected["spacing"]
    actual = vars(clip)
    differing = [f"clip.{key}={value}" for key, value in expected.items() if actual[key] != value]
    return differing + (["average=prob"] if average != "prob" else [])


def _hub_note(model: PublishedModel) -> str:
    """Says what the TF-Hub page gives differently; accuracies are compared with the official values."""
    page = model.hub_page
    if page is None:
        return ""
    pairs = (("top-1", page.top1, model.top1), ("top-5", page.top5, model.top5))
    notes = [f"{hub} % {name} (official: {official} %)" for name, hub, official in pairs if hub != official]
    if page.name != model.name:
        notes.append(f"the name {page.name}")
    return f"the TF-Hub page gives {' and '.join(notes)}: {page.why}" if notes else ""
