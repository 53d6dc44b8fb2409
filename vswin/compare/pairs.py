"""Compare two evaluations video by video, and say in a sentence what that shows."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from vswin.compare.differences import protocol_differences
from vswin.compare.statistics import count_discordant, difference_interval, format_p, mcnemar_p
from vswin.runs.files import Run
from vswin.wording import printable

LEVEL = 0.05


@dataclass(frozen=True)
class Pair:
    """Hold the difference between two runs on the videos that both were tested on.

    Attributes:
        first: Letter of the run that is compared with.
        second: Letter of the run that is better or worse.
        problem: Why there is no test; empty if there is one.
        notes: What a reader has to know besides, e.g. that protocols differ.
        num_videos: Videos that both have, N.
        num_first_has_alone: Videos that only the first has, which are left out.
        num_second_has_alone: Videos that only the second has, which are left out.
        num_only_first: Of the N, those that the first alone got right.
        num_only_second: Of the N, those that the second alone got right.
        num_both: Of the N, those that both got right.
        interval: Of the difference, in the fraction of videos, 95 % for all tests of the comparison together
            (Bonferroni); see `difference_interval`. It excludes 0 exactly when `corrected_p` < 0.05.
        p_value: See `mcnemar_p`.
        corrected_p: The same, corrected for the number of tests (Bonferroni).
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
        """Gives accuracy of the second - accuracy of the first, as a fraction of the N videos."""
        return (self.num_only_second - self.num_only_first) / self.num_videos if self.num_videos else 0.0


def compare_pairs(runs: Sequence[Run], is_all: bool = False) -> list[Pair]:
    """Tests the differences between runs that have predictions.

    Args:
        runs: All of them; those without `predictions.csv` are passed over, but for the first.
        is_all: Whether each is compared with each, and not with the first alone.

    Returns:
        The pairs in order, p-values and intervals corrected for the number of tests.
    """
    tested = [run for run in runs if run.predictions is not None]
    chosen = itertools.combinations(tested, 2) if is_all else ((runs[0], run) for run in tested if run is not runs[0])
    pairs = [compare_pair(first, second) for first, second in chosen]
    num_tests = sum(not pair.problem for pair in pairs)
    return [
        pair
        if pair.problem
        else replace(
            pair,
            corrected_p=min(1.0, num_tests * pair.p_value),
            interval=difference_interval(
                pair.num_only_first, pair.num_only_second, pair.num_videos, 1 - LEVEL / num_tests
            ),
        )
        for pair in pairs
    ]


def compare_pair(first: Run, second: Run) -> Pair:
    """Tests whether two runs are right equally often on the videos that both have.

    Args:
        first: A run.
        second: Another one, with predictions.

    Returns:
        The difference, not corrected; or why there is none to speak of: no predictions, no video in common, other
        labels, other classes to choose among.
    """
    if first.predictions is None:
        ways = f"evaluate {first.label}, name another run first, or compare each with each (--all-pairs)"
        return Pair(first.label, second.label, f"{first.label} has no predictions.csv; {ways}")
    assert second.predictions is not None
    left, right, note = _match(first, second)
    problem = _find_problem(first, second, left, right)
    if problem:
        return Pair(first.label, second.label, problem)
    hits_left, hits_right = first.predictions.is_right[left], second.predictions.is_right[right]
    num_only_first, num_only_second = count_discordant(hits_left, hits_right)
    return Pair(
        first.label,
        second.label,
        notes=[*note, *_protocol_notes(first, second), *_bad_notes(first, second)],
        num_videos=len(left),
        num_first_has_alone=len(first.predictions.paths) - len(left),
        num_second_has_alone=len(second.predictions.paths) - len(right),
        num_only_first=num_only_first,
        num_only_second=num_only_second,
        num_both=int((hits_left & hits_right).sum()),
        p_value=mcnemar_p(num_only_first, num_only_second),
    )


def say_pair(pair: Pair) -> str:
    """Says in a sentence what a pair shows, by its interval and p-value, which agree."""
    first, second, videos = pair.first, pair.second, _count(pair.num_videos, "video")
    if pair.problem:
        return f"{second} and {first} cannot be compared: {pair.problem}."
    p, points = format_p(pair.corrected_p), 100 * pair.difference
    low, high = pair.interval
    if pair.num_only_first + pair.num_only_second == 0:
        return f"{second} and {first}: no difference, right and wrong on the same {videos}."
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


def _points(share: float, sign: str = "") -> str:
    """Writes an end of an interval so that what is not 0 is not written as 0."""
    points = 100 * share
    return f"{points:{sign}{'.1f' if abs(points) >= 0.05 or points == 0 else '.1g'}}"


def say_missing(pair: Pair) -> str:
    """Says how many videos were left out of a pair; empty if none were."""
    alone = ((pair.first, pair.num_first_has_alone), (pair.second, pair.num_second_has_alone))
    parts = [f"{_count(count, 'video')} that only {label} has" for label, count in alone if count]
    return "the test sets differ: left out " + " and ".join(parts) if parts else ""


def _find_problem(first: Run, second: Run, left: np.ndarray, right: np.ndarray) -> str:
    assert first.predictions is not None
    assert second.predictions is not None
    # In another order, as another file list gives it, they are the same ones.
    names, other_names = set(first.class_names), set(second.class_names)
    if names and other_names and names != other_names:
        only = sorted(names ^ other_names)
        return (
            f"they chose among other classes ({len(first.class_names):,} and {len(second.class_names):,}; not in both: "
            f"{_name_some(only)})"
        )
    if not len(left):
        return "they have no test video in common"
    pairs = [(first.predictions.labels[i], second.predictions.labels[j]) for i, j in zip(left, right, strict=True)]
    differing = [index for index, (one, other) in enumerate(pairs) if one != other]
    if not differing:
        return ""
    path, (one, other) = first.predictions.paths[left[differing[0]]], pairs[differing[0]]
    return (
        f"{len(differing):,} of {_count(len(left), 'video')} have other labels, e.g. {printable(path)} is "
        f"{printable(one)} in {first.label} and {printable(other)} in {second.label}"
    )


def _match(first: Run, second: Run) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Finds the videos that both have, by the way of naming them that finds most.

    Returns:
        Their indices in the first and in the second, int64 [N] each, and what there is to say of the way.
    """
    roots = first.test_set.get("root"), second.test_set.get("root")
    ways: list[tuple[Callable[[Run], list[str]], str]] = [(_by_path, "")]
    if all(isinstance(root, str) for root in roots) and first.test_set.get("name") == second.test_set.get("name"):
        ways.append((_by_place, f"videos are matched by their paths below {roots[0]} and {roots[1]}"))
    hashes = first.test_set.get("list_hash"), second.test_set.get("list_hash")
    if hashes[0] is not None and hashes[0] == hashes[1]:
        ways.append((_by_name, "videos are matched by their names without folders, the lists being the same"))
    best: tuple[list[int], list[int]] = [], []
    best_note = ""
    for way, note in ways:
        indices = _index(way(second))
        matches = [(i, indices[key]) for key, i in _index(way(first)).items() if key in indices]
        if len(matches) > len(best[0]):
            best, best_note = ([i for i, _ in matches], [j for _, j in matches]), note
    return np.array(best[0], np.int64), np.array(best[1], np.int64), [printable(best_note)] if best_note else []


def _index(names: Iterable[str]) -> dict[tuple[str, int], int]:
    """Gives the place of each name; of a name that stands there several times, the n-th goes with the other's n-th."""
    seen: dict[str, int] = defaultdict(int)
    places = {}
    for place, name in enumerate(names):
        places[name, seen[name]] = place
        seen[name] += 1
    return places


def _by_path(run: Run) -> list[str]:
    assert run.predictions is not None
    return run.predictions.paths


def _by_place(run: Run) -> list[str]:
    assert run.predictions is not None
    start = str(Path(run.test_set["root"])) + "/"
    return [path.removeprefix(start) for path in run.predictions.paths]


def _by_name(run: Run) -> list[str]:
    assert run.predictions is not None
    pairs = zip(run.predictions.paths, run.predictions.labels, strict=True)
    return [f"{Path(path).stem}\t{label}" for path, label in pairs]


def _protocol_notes(first: Run, second: Run) -> list[str]:
    unknown = [run.label for run in (first, second) if not run.protocol]
    if unknown:
        return [f"how {' and '.join(unknown)} was tested is not known (no protocol in metrics.json)"]
    rows = protocol_differences([first, second])
    settings = [f"{row.key.removeprefix('test ')} {row.values[0]} and {row.values[1]}" for row in rows]
    return [printable(f"tested differently: {', '.join(settings)} ({first.label} and {second.label})")] if rows else []


def _bad_notes(first: Run, second: Run) -> list[str]:
    bad = [(run.label, run.predictions.num_bad) for run in (first, second) if run.predictions is not None]
    return [f"{_count(count, 'video')} that {label} could not decode count as wrong" for label, count in bad if count]


def _name_some(names: Sequence[str]) -> str:
    return ", ".join(printable(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
