"""What an evaluation got right by class, and what it took for what; counted from its predictions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vswin.runs.files import Predictions

# Up to so many classes a table of all of them can be read.
MAX_WHOLE_MATRIX = 20
_NUM_IN_PART = 12


class ClassScore(NamedTuple):
    """Describe how a class fared.

    Attributes:
        name: Its name.
        num_videos: Its videos, >= 1.
        num_right: Those that were recognised.
        taken_for: Class that was said most often instead; empty if none was.
        num_taken: How often.
    """

    name: str
    num_videos: int
    num_right: int
    taken_for: str
    num_taken: int

    @property
    def top1(self) -> float:
        """Gives the share that was recognised, 0..1."""
        return self.num_right / self.num_videos


class Confusion(NamedTuple):
    """Hold how often one class was taken for another.

    Attributes:
        label: What is true.
        said: What was said.
        times: How often.
        num_videos: Videos of the class `label`.
        num_back: How often it was the other way round.
    """

    label: str
    said: str
    times: int
    num_videos: int
    num_back: int


class Matrix(NamedTuple):
    """Hold a confusion matrix, or the part of it with the classes that are confused most.

    Attributes:
        names: N classes.
        counts: int64 [N, N + 2]; row = label, column = what was said; the last two: another class, and nothing, as
            the video could not be decoded.
        is_whole: Whether all classes are in it.
    """

    names: list[str]
    counts: np.ndarray
    is_whole: bool


def score_classes(predictions: Predictions) -> list[ClassScore]:
    """Counts each class that has a video; those that fared worst come first, of equals those with more videos."""
    numbers = Counter(predictions.labels)
    right = Counter(label for label, hit in zip(predictions.labels, predictions.is_right, strict=True) if hit)
    worst: dict[str, tuple[str, int]] = {}
    for (label, said), count in _count_mistakes(predictions).most_common():
        worst.setdefault(label, (said, count))
    scores = [ClassScore(name, count, right[name], *worst.get(name, ("", 0))) for name, count in numbers.items()]
    return sorted(scores, key=lambda score: (score.top1, -score.num_videos, score.name))


def most_confused(predictions: Predictions, num_pairs: int) -> list[Confusion]:
    """Lists which classes are taken for which, the most frequent first."""
    mistakes, numbers = _count_mistakes(predictions), Counter(predictions.labels)
    ordered = sorted(mistakes.items(), key=lambda item: (-item[1], -item[1] / numbers[item[0][0]], item[0]))
    return [
        Confusion(label, said, count, numbers[label], mistakes[said, label])
        for (label, said), count in ordered[:num_pairs]
    ]


def make_matrix(predictions: Predictions, class_names: Sequence[str]) -> Matrix:
    """Counts the confusion matrix of all classes, or where there are many, of those in the most frequent mistakes.

    Args:
        predictions: of an evaluation.
        class_names: in the order of their labels; may be empty, if that is not known.
    """
    known = dict.fromkeys([*class_names, *predictions.labels, *filter(None, predictions.said)])
    is_whole = len(known) <= MAX_WHOLE_MATRIX
    if is_whole:
        names = list(known)
    else:
        pairs = most_confused(predictions, _NUM_IN_PART)
        # Those that are confused with each other stand beside each other.
        names = list(dict.fromkeys(name for pair in pairs for name in (pair.label, pair.said)))[:_NUM_IN_PART]
    places = {name: place for place, name in enumerate(names)}
    counts = np.zeros((len(names), len(names) + 2), np.int64)
    for label, said in zip(predictions.labels, predictions.said, strict=True):
        if label in places:
            counts[places[label], places.get(said, len(names)) if said else len(names) + 1] += 1
    return Matrix(names, counts, is_whole)


def _count_mistakes(predictions: Predictions) -> Counter[tuple[str, str]]:
    pairs = zip(predictions.labels, predictions.said, strict=True)
    return Counter((label, said) for label, said in pairs if said and said != label)
