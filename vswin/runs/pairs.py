"""Compares evaluations video by video: exact McNemar test, a matching interval, and a sentence about both.

With several labels per sample, the mAP is compared by a paired bootstrap instead.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from scipy.special import bdtr, betaincinv

from vswin.console import count_of, printable
from vswin.data.samples import split_name
from vswin.runs.figures import protocol_differences
from vswin.runs.files import Run
from vswin.runs.metrics import wilson_interval
from vswin.runs.multi_label import draw_resamples, mean_average_precision, resample_map

LEVEL = 0.05


@dataclass(frozen=True)
class Pair:
    """The difference between two runs on the videos that both were tested on.

    Attributes:
        first, second: Letters of the reference run, and of the run that is better or worse.
        problem: Why there is no test; otherwise empty.
        notes: Further facts for the reader, e.g. that protocols differ.
        num_videos: Videos that both runs have, N.
        num_first_has_alone, num_second_has_alone: Videos that only one run has, which are left out.
        num_only_first, num_only_second, num_both: Of the N videos, those that only one run, or both runs, got right.
        interval: Interval of the difference, as a fraction of videos, 95 % for all tests of the comparison together
            (Bonferroni); see `difference_interval`. It excludes 0 exactly when `corrected_p` < 0.05.
        p_value, corrected_p: See `mcnemar_p`; `corrected_p` accounts for the number of tests (Bonferroni).
        map_difference: With several labels: mAP of the second - mAP of the first.
        resampled: Then the same differences in the resamples of the videos, in ascending order.
    """

    first: str
    second: str
    problem: str = ""
    notes: list[str] = field(default_factory=list)
    num_videos: int = 0
    num_first_has_alone: int = 0
    num_second_has_alone: int = 0
    num_only_first: int = 0
    num_only_second: int = 0
    num_both: int = 0
    interval: tuple[float, float] = (0.0, 0.0)
    p_value: float = 1.0
    corrected_p: float = 1.0
    map_difference: float | None = None
    resampled: Sequence[float] = ()

    @property
    def difference(self) -> float:
        """Accuracy of the second - accuracy of the first, as a fraction of the N videos; or of their mAP."""
        if self.map_difference is not None:
            return self.map_difference
        return (self.num_only_second - self.num_only_first) / max(self.num_videos, 1)


def compare_pairs(runs: Sequence[Run], is_all: bool = False) -> list[Pair]:
    """Tests runs against the first one, or all pairs of runs, corrected for the number of tests.

    Runs without `predictions.csv` are skipped, except the first.
    """
    tested = [run for run in runs if run.predictions is not None]
    chosen = itertools.combinations(tested, 2) if is_all else ((runs[0], run) for run in tested if run is not runs[0])
    pairs = [compare_pair(first, second) for first, second in chosen]
    num_tests = sum(not pair.problem for pair in pairs)
    for index, pair in enumerate(pairs):
        if not pair.problem:
            counts, level = (pair.num_only_first, pair.num_only_second, pair.num_videos), 1 - LEVEL / num_tests
            corrected_p = min(1.0, num_tests * pair.p_value)
            if pair.map_difference is None:
                interval = difference_interval(*counts, level)
            else:
                # The p-value counts the resamples beyond 0, so both agree.
                rank = int(LEVEL / num_tests / 2 * (len(pair.resampled) + 1))
                interval = (pair.resampled[rank - 1], pair.resampled[-rank]) if rank else (-1.0, 1.0)
            pairs[index] = replace(pair, corrected_p=corrected_p, interval=interval)
    return pairs


def compare_pair(first: Run, second: Run) -> Pair:
    """Tests whether two runs are right equally often on their common videos; `second` must have predictions.

    Returns:
        The difference, not corrected, or the problem that prevents a test: no predictions, no common video, different
        labels, or different sets of classes.
    """
    one, other = first.predictions, second.predictions
    assert other is not None
    if one is None:
        way_out = f"evaluate {first.label}, name another run first, or compare each with each (--all-pairs)"
        return Pair(first.label, second.label, f"{first.label} has no predictions.csv; {way_out}")
    if (one.scores is None) != (other.scores is None):
        return Pair(first.label, second.label, "one has several labels per sample, the other has one")
    # The order of the names depends on the file list and does not matter.
    if first.class_names and second.class_names and (differing := set(first.class_names) ^ set(second.class_names)):
        some = ", ".join(map(printable, sorted(differing)[:3])) + (", ..." if len(differing) > 3 else "")
        counts = f"{len(first.class_names):,} and {len(second.class_names):,}"
        problem = f"they chose among other classes ({counts}; not in both: {some})"
        return Pair(first.label, second.label, problem)
    left, right, match_note = _match(first, second)
    if not len(left):
        return Pair(first.label, second.label, "they have no test video in common")
    labels, other_labels = np.array(one.labels, object)[left], np.array(other.labels, object)[right]
    if one.scores is not None:
        # The order of the classes may differ.
        labels, other_labels = (
            np.array([";".join(sorted(text.split(";"))) for text in some], object) for some in (labels, other_labels)
        )
    if len(wrong := np.flatnonzero(labels != other_labels)):
        example = f"{printable(one.paths[left[wrong[0]]])} is {printable(labels[wrong[0]])} in {first.label}"
        problem = (
            f"{len(wrong):,} of {count_of(len(left), 'video')} have other labels, e.g. {example} and "
            f"{printable(other_labels[wrong[0]])} in {second.label}"
        )
        return Pair(first.label, second.label, problem)

    # Notes: what was left out, how videos were matched, how the tests differed, and bad videos.
    alone = {first.label: len(one.paths) - len(left), second.label: len(other.paths) - len(right)}
    left_out = [f"{count_of(count, 'video')} that only {label} has" for label, count in alone.items() if count]
    notes = [f"the test sets differ: left out {' and '.join(left_out)}"] if left_out else []
    notes += [printable(match_note)] if match_note else []
    if unknown := [run.label for run in (first, second) if not run.protocol]:
        notes.append(f"how {' and '.join(unknown)} was tested is not known (no protocol in metrics.json)")
    elif rows := protocol_differences([first, second]):
        settings = ", ".join(f"{row.key.removeprefix('test ')} {' and '.join(row.values)}" for row in rows)
        notes.append(printable(f"tested differently: {settings} ({first.label} and {second.label})"))
    for label, predictions in ((first.label, one), (second.label, other)):
        if num_bad := predictions.predicted.count(""):
            notes.append(f"{count_of(num_bad, 'video')} that {label} could not decode count as wrong")

    if one.scores is not None and other.scores is not None:
        marks = np.array([[name in text.split(";") for name in first.class_names] for text in labels], np.float64)
        columns = [second.class_names.index(name) for name in first.class_names]
        pair = marks, one.scores[left], other.scores[right][:, columns]
        return _compare_map(Pair(first.label, second.label, notes=notes, num_videos=len(left)), *pair)
    hits, other_hits = one.is_right[left], other.is_right[right]
    num_only_first, num_only_second = int((hits & ~other_hits).sum()), int((other_hits & ~hits).sum())
    return Pair(
        first.label,
        second.label,
        notes=notes,
        num_videos=len(left),
        num_first_has_alone=alone[first.label],
        num_second_has_alone=alone[second.label],
        num_only_first=num_only_first,
        num_only_second=num_only_second,
        num_both=int((hits & other_hits).sum()),
        p_value=mcnemar_p(num_only_first, num_only_second),
    )


def _compare_map(pair: Pair, targets: np.ndarray, scores: np.ndarray, other_scores: np.ndarray) -> Pair:
    """Adds the difference of the mAP, and its p-value from resamples of the videos that both models share."""
    if not targets.any():
        return replace(pair, problem="no common video has a label")
    resamples = draw_resamples(len(targets))
    maps = [resample_map(targets, some, resamples) for some in (scores, other_scores)]
    resampled = np.sort(maps[1] - maps[0])
    num_beyond = min(int((resampled <= 0).sum()), int((resampled >= 0).sum()))
    return replace(
        pair,
        map_difference=mean_average_precision(targets, other_scores) - mean_average_precision(targets, scores),
        resampled=resampled.tolist(),
        p_value=min(1.0, 2 * (num_beyond + 1) / (len(resampled) + 1)),
    )


def describe_pair(pair: Pair) -> str:
    """States in a sentence what a pair shows, by its interval and p-value, which agree."""
    first, second, videos = pair.first, pair.second, count_of(pair.num_videos, "video")
    if pair.problem:
        return f"{second} and {first} cannot be compared: {pair.problem}."
    if pair.map_difference == 0 and not any(pair.resampled):
        return f"{second} and {first}: no difference, they rank the same {videos} alike."
    if pair.map_difference is None and pair.num_only_first + pair.num_only_second == 0:
        return f"{second} and {first}: no difference, right and wrong on the same {videos}."
    p, points = "p < 0.001" if pair.corrected_p < 0.001 else f"p = {pair.corrected_p:.2g}", 100 * pair.difference
    (low, high), of_map = pair.interval, "" if pair.map_difference is None else " of mAP"
    if low > 0 or high < 0:
        word = "better" if points > 0 else "worse"
        low, high = (low, high) if points > 0 else (-high, -low)
        return (
            f"{second} is {word} than {first} by {abs(points):.1f} points{of_map} (95 % interval {_points(low)} to "
            f"{_points(high)}, {p}, {videos})."
        )
    return (
        f"{second} and {first}: no difference that {videos} could show ({second} - {first}: {points:+.1f} "
        f"points{of_map}, 95 % interval {_points(low, '+')} to {_points(high, '+')}, {p})."
    )


def _points(share: float, sign: str = "") -> str:
    """Formats an end of an interval so that only 0 is written as 0."""
    points = 100 * share
    return f"{points:{sign}{'.1f' if abs(points) >= 0.05 or points == 0 else '.1g'}}"


def _match(first: Run, second: Run) -> tuple[np.ndarray, np.ndarray, str]:
    """Finds common videos by the kind of name that matches most; gives indices in both runs, int64 [N], and a note."""
    one, other = first.predictions, second.predictions
    assert one is not None
    assert other is not None
    attempts = [(one.paths, other.paths, "")]
    root, other_root = first.test_set.get("root"), second.test_set.get("root")
    is_same_data = first.test_set.get("name") == second.test_set.get("name")
    if isinstance(root, str) and isinstance(other_root, str) and is_same_data:
        below = [path.removeprefix(f"{Path(root)}/") for path in one.paths]
        other_below = [path.removeprefix(f"{Path(other_root)}/") for path in other.paths]
        attempts.append((below, other_below, f"videos are matched by their paths below {root} and {other_root}"))
    list_hash = first.test_set.get("list_hash")
    if list_hash is not None and list_hash == second.test_set.get("list_hash"):
        names, other_names = (
            [
                f"{Path(path).stem}{part}\t{label}"
                for (path, part), label in zip(map(split_name, predictions.paths), predictions.labels, strict=True)
            ]
            for predictions in (one, other)
        )
        note = "videos are matched by their names without folders, the lists being the same"
        attempts.append((names, other_names, note))
    best: list[tuple[int, int]] = []
    best_note = ""
    for left, right, note in attempts:
        indices = _index(right)
        matches = [(index, indices[key]) for key, index in _index(left).items() if key in indices]
        if len(matches) > len(best):
            best, best_note = matches, note
    found = np.array(best, np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1], best_note


def _index(names: Sequence[str]) -> dict[tuple[str, int], int]:
    """Gives (name, n) -> index of the n-th occurrence of a name, so that repeated names are matched in order."""
    seen: dict[str, int] = defaultdict(int)
    indices = {}
    for index, name in enumerate(names):
        indices[name, seen[name]] = index
        seen[name] += 1
    return indices


def mcnemar_p(num_only_first: int, num_only_second: int) -> float:
    """Tests whether two models are right equally often, by the videos that only one of them got right.

    If they are, each of these videos belongs to either model with the same probability, independently of the others.

    Returns:
        The exact two-sided p-value, 0..1; 1 if there are no such videos.

    Source: Q. McNemar, Note on the Sampling Error of the Difference Between Correlated Proportions or Percentages,
        1947, with the binomial distribution in place of its approximation.
    """
    count = num_only_first + num_only_second
    return min(1.0, 2 * float(bdtr(min(num_only_first, num_only_second), count, 0.5))) if count else 1.0


def difference_interval(
    num_only_first: int, num_only_second: int, num_videos: int, level: float = 0.95
) -> tuple[float, float]:
    """Gives the interval of accuracy of the second - accuracy of the first, -1..1, for other videos of the same kind.

    The difference is a product: the share of the videos that only one model gets right, times the surplus of the second
    model among them. The limits of both factors (Wilson; Clopper and Pearson, which inverts the exact McNemar test) are
    combined by the method of Zou and Donner. Where that would contradict the test, the limits are multiplied instead,
    so that the interval excludes 0 exactly when `mcnemar_p` < 1 - level.

    Source: G. Y. Zou and A. Donner, Construction of Confidence Limits about Effect Measures: A General Approach, 2008.
    """
    return (
        -_largest_difference(num_only_second, num_only_first, num_videos, level),
        _largest_difference(num_only_first, num_only_second, num_videos, level),
    )


def _largest_difference(num_only_first: int, num_only_second: int, num_videos: int, level: float) -> float:
    count = num_only_first + num_only_second
    share, surplus = count / num_videos, (num_only_second - num_only_first) / max(count, 1)
    fewest, most = wilson_interval(share, num_videos, level)
    if count == 0:
        return most
    # Clopper and Pearson: the smallest share of the first model among these videos.
    smallest = betaincinv(num_only_first, num_only_second + 1, (1 - level) / 2) if num_only_first else 0.0
    limit = 1 - 2 * float(smallest)
    reach = math.hypot(share * (limit - surplus), surplus * ((most if surplus > 0 else fewest) - share))
    return min(share * surplus + reach, limit * fewest if limit < 0 else 1.0)
