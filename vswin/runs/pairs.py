"""Compare two evaluations video by video, and state the result in a sentence."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from vswin.console import count_of, printable
from vswin.runs.differences import protocol_differences
from vswin.runs.files import Predictions, Run
from vswin.runs.statistics import difference_interval, mcnemar_p

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

    @property
    def difference(self) -> float:
        """Accuracy of the second - accuracy of the first, as a fraction of the N videos."""
        return (self.num_only_second - self.num_only_first) / self.num_videos if self.num_videos else 0.0


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
            pairs[index] = replace(pair, corrected_p=corrected_p, interval=difference_interval(*counts, level))
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
        ways = f"evaluate {first.label}, name another run first, or compare each with each (--all-pairs)"
        return Pair(first.label, second.label, f"{first.label} has no predictions.csv; {ways}")
    left, right, notes = _match(first, one, second, other)
    if problem := _find_problem(first, second, left, right):
        return Pair(first.label, second.label, problem)
    for run, predictions in ((first, one), (second, other)):
        if num_bad := predictions.predicted.count(""):
            notes.append(f"{count_of(num_bad, 'video')} that {run.label} could not decode count as wrong")
    hits_left, hits_right = one.is_right[left], other.is_right[right]
    num_only_first, num_only_second = int((hits_left & ~hits_right).sum()), int((hits_right & ~hits_left).sum())
    return Pair(
        first.label,
        second.label,
        notes=notes,
        num_videos=len(left),
        num_first_has_alone=len(one.paths) - len(left),
        num_second_has_alone=len(other.paths) - len(right),
        num_only_first=num_only_first,
        num_only_second=num_only_second,
        num_both=int((hits_left & hits_right).sum()),
        p_value=mcnemar_p(num_only_first, num_only_second),
    )


def say_pair(pair: Pair) -> str:
    """States in a sentence what a pair shows, by its interval and p-value, which agree."""
    first, second, videos = pair.first, pair.second, count_of(pair.num_videos, "video")
    if pair.problem:
        return f"{second} and {first} cannot be compared: {pair.problem}."
    if pair.num_only_first + pair.num_only_second == 0:
        return f"{second} and {first}: no difference, right and wrong on the same {videos}."
    p, points = "p < 0.001" if pair.corrected_p < 0.001 else f"p = {pair.corrected_p:.2g}", 100 * pair.difference
    low, high = pair.interval
    if low > 0 or high < 0:
        word = "better" if points > 0 else "worse"
        low, high = (low, high) if points > 0 else (-high, -low)
        return (
            f"{second} is {word} than {first} by {abs(points):.1f} points (95 % interval {_points(low)} to "
            f"{_points(high)}, {p}, {videos})."
        )
    return (
        f"{second} and {first}: no difference that {videos} could show ({second} - {first}: {points:+.1f} points, "
        f"95 % interval {_points(low, '+')} to {_points(high, '+')}, {p})."
    )


def list_notes(pair: Pair) -> list[str]:
    """Lists further facts for the reader: how many videos were left out, and the notes of the pair."""
    alone = ((pair.first, pair.num_first_has_alone), (pair.second, pair.num_second_has_alone))
    parts = [f"{count_of(count, 'video')} that only {label} has" for label, count in alone if count]
    return [*([f"the test sets differ: left out {' and '.join(parts)}"] if parts else []), *pair.notes]


def _points(share: float, sign: str = "") -> str:
    """Writes an end of an interval so that only 0 is written as 0."""
    points = 100 * share
    return f"{points:{sign}{'.1f' if abs(points) >= 0.05 or points == 0 else '.1g'}}"


def _find_problem(first: Run, second: Run, left: np.ndarray, right: np.ndarray) -> str:
    """Says why two runs cannot be compared on videos with these indices; empty if they can."""
    assert first.predictions is not None
    assert second.predictions is not None
    # The order of the names depends on the file list and does not matter.
    names, other_names = set(first.class_names), set(second.class_names)
    if names and other_names and names != other_names:
        only = [printable(name) for name in sorted(names ^ other_names)]
        some = ", ".join(only[:3]) + (", ..." if len(only) > 3 else "")
        return (
            f"they chose among other classes ({len(first.class_names):,} and {len(second.class_names):,}; not in both: "
            f"{some})"
        )
    if not len(left):
        return "they have no test video in common"
    pairs = [(first.predictions.labels[i], second.predictions.labels[j]) for i, j in zip(left, right, strict=True)]
    differing = [index for index, (one, other) in enumerate(pairs) if one != other]
    if not differing:
        return ""
    path, (one, other) = first.predictions.paths[left[differing[0]]], pairs[differing[0]]
    return (
        f"{len(differing):,} of {count_of(len(left), 'video')} have other labels, e.g. {printable(path)} is "
        f"{printable(one)} in {first.label} and {printable(other)} in {second.label}"
    )


def _match(first: Run, one: Predictions, second: Run, other: Predictions) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Finds common videos by the kind of name that matches most; gives indices in both runs, int64 [N], and notes."""
    attempts: list[tuple[Sequence[str], Sequence[str], str]] = [(one.paths, other.paths, "")]
    root, other_root = first.test_set.get("root"), second.test_set.get("root")
    is_same_data = first.test_set.get("name") == second.test_set.get("name")
    if isinstance(root, str) and isinstance(other_root, str) and is_same_data:
        below = [path.removeprefix(f"{Path(root)}/") for path in one.paths]
        other_below = [path.removeprefix(f"{Path(other_root)}/") for path in other.paths]
        attempts.append((below, other_below, f"videos are matched by their paths below {root} and {other_root}"))
    list_hash = first.test_set.get("list_hash")
    if list_hash is not None and list_hash == second.test_set.get("list_hash"):
        names, other_names = (
            [f"{Path(path).stem}\t{label}" for path, label in zip(predictions.paths, predictions.labels, strict=True)]
            for predictions in (one, other)
        )
        note = "videos are matched by their names without folders, the lists being the same"
        attempts.append((names, other_names, note))
    best: list[tuple[int, int]] = []
    best_note = ""
    for left, right, note in attempts:
        indices = _index(right)
        matches = [(i, indices[key]) for key, i in _index(left).items() if key in indices]
        if len(matches) > len(best):
            best, best_note = matches, note
    notes = [printable(best_note)] if best_note else []
    unknown = [run.label for run in (first, second) if not run.protocol]
    if unknown:
        notes.append(f"how {' and '.join(unknown)} was tested is not known (no protocol in metrics.json)")
    elif rows := protocol_differences([first, second]):
        settings = [f"{row.key.removeprefix('test ')} {row.values[0]} and {row.values[1]}" for row in rows]
        notes.append(printable(f"tested differently: {', '.join(settings)} ({first.label} and {second.label})"))
    found = np.array(best, np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1], notes


def _index(names: Iterable[str]) -> dict[tuple[str, int], int]:
    """Gives (name, n) -> index of the n-th occurrence of a name, so that repeated names are matched in order."""
    seen: dict[str, int] = defaultdict(int)
    indices = {}
    for index, name in enumerate(names):
        indices[name, seen[name]] = index
        seen[name] += 1
    return indices
