"""Define samples, the names of the subsets they form, and which samples are held out for validation."""

from __future__ import annotations

import hashlib
import math
import os
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vswin.errors import InputError

TRAIN, VAL, TEST = "train", "val", "test"
ROLES = {TRAIN: "training", VAL: "validation", TEST: "test"}


class Segment(NamedTuple):
    """A part of a video in time: from `start` up to, but without, `end`, in seconds or in frame numbers."""

    start: float
    end: float = math.inf
    in_frames: bool = False


class Region(NamedTuple):
    """A box to cut out of all pictures of a sample, in pixels or in fractions of width and height."""

    left: float
    top: float
    right: float
    bottom: float
    in_pixels: bool = True


class Part(NamedTuple):
    """The part of a video that a sample shows; None stands for the whole length and for whole pictures."""

    segment: Segment | None = None
    region: Region | None = None

    def __str__(self) -> str:
        """Describes the part as the end of a sample's name, e.g. "#t=12.5,20&box=0,0,0.5,1"; "" for a whole video."""
        texts = []
        if self.segment is not None:
            start, end, in_frames = self.segment
            texts.append(f"{'frames' if in_frames else 't'}={start:.10g},{'' if end == math.inf else f'{end:.10g}'}")
        if self.region is not None:
            texts.append("box=" + ",".join(f"{side:.10g}" for side in self.region[:4]) + "px" * self.region.in_pixels)
        return "#" + "&".join(texts) if texts else ""


WHOLE = Part()
_NUMBER = r"-?\d+(?:\.\d+)?(?:e[+-]\d+)?"
_PART = re.compile(rf"#(?:(t|frames)=({_NUMBER}),({_NUMBER})?)?&?(?:box=({_NUMBER}(?:,{_NUMBER}){{3}})(px)?)?")


class Sample(NamedTuple):
    """One labelled sample of a data set: a video or a part of it.

    Attributes:
        path: The video: a file, a folder of pictures, or its name in a packed data set.
        labels: The index of its class, 0 .. K-1, as a tuple of one; with several labels per sample, the indices of all
            its classes in ascending order, possibly none.
        part: The part of the video that the sample shows.
        group: Samples of one group, for example of a person, belong into one subset; "" for none.
    """

    path: str
    labels: tuple[int, ...]
    part: Part = WHOLE
    group: str = ""

    @property
    def label(self) -> int:
        """The index of its only class."""
        (label,) = self.labels
        return label

    @property
    def name(self) -> str:
        """The path with the part of the video, which is unique in a data set."""
        return f"{self.path}{self.part}"


def multi_hot(samples: Sequence[Sample], num_classes: int) -> np.ndarray:
    """Marks the classes of samples by 1 and all others by 0, float32 [N, K]."""
    marks = np.zeros((len(samples), num_classes), np.float32)
    for row, sample in zip(marks, samples, strict=True):
        row[list(sample.labels)] = 1
    return marks


def name_labels(labels: Sequence[int], class_names: Sequence[str]) -> str:
    """Writes the labels of a sample as lists do: class names, separated by semicolons."""
    return ";".join(class_names[label] for label in labels)


def split_name(name: str) -> tuple[str, Part]:
    """Divides the name of a sample into the path of its video and the part of the video."""
    path, mark, _ = name.rpartition("#")
    found = _PART.fullmatch(name, len(path)) if mark else None
    if found is None or not (found[1] or found[4]):
        return name, WHOLE
    segment = Segment(float(found[2]), float(found[3] or math.inf), found[1] == "frames") if found[1] else None
    sides = map(float, found[4].split(",")) if found[4] else ()
    region = Region._make([*sides, bool(found[5])]) if found[4] else None
    return path, Part(segment, region)


def split_train_val(samples: Sequence[Sample], val_fraction: float, base: str) -> tuple[list[Sample], list[Sample]]:
    """Holds out a fraction of each class for validation, independent of the data set's folder and order.

    Files whose names agree up to a `_g01_`, as in UCF101, come from one recording and stay together; folder names do
    not mark a recording. Every other file is its own group. A class with one group is only used for training.

    `val_fraction`, above 0 and below 1, is the fraction of a class's groups to hold out, rounded, at least one group.
    `base` is the folder of the data set, which is removed from group names. Samples that have groups, or are segments,
    are divided by `_split_groups`. Of several labels, the rarest one counts.
    """
    if any(sample.group or sample.part.segment for sample in samples):
        return _split_groups(samples, val_fraction, base)
    groups = []
    by_class: dict[int, set[str]] = defaultdict(set)
    prefixes: dict[str, str] = {}
    for sample, label in zip(samples, _find_rarest(samples), strict=True):
        folder, name = os.path.split(sample.path)
        if folder not in prefixes:
            prefix = Path(os.path.relpath(folder, base)).as_posix()
            prefixes[folder] = "" if prefix == "." else f"{prefix}/"
        recording = re.match(r".*_g\d+_", name)
        groups.append((label, prefixes[folder] + (recording.group() if recording else name)))
        by_class[label].add(groups[-1][1])
    held_out: set[tuple[int, str]] = set()
    for label, names in by_class.items():
        num_val = max(1, round(val_fraction * len(names)))
        ordered = sorted(names, key=lambda name: hashlib.sha1(os.fsencode(name), usedforsecurity=False).digest())
        held_out.update((label, name) for name in ordered[: min(num_val, len(names) - 1)])
    train = [sample for sample, group in zip(samples, groups, strict=True) if group not in held_out]
    val = [sample for sample, group in zip(samples, groups, strict=True) if group in held_out]
    return train, val


def _find_rarest(samples: Sequence[Sample]) -> list[int]:
    """Finds the label of each sample that the fewest samples have; -1 for a sample without labels."""
    counts = Counter(label for sample in samples for label in sample.labels)
    return [min(sample.labels, key=counts.__getitem__, default=-1) for sample in samples]


def _split_groups(samples: Sequence[Sample], val_fraction: float, base: str) -> tuple[list[Sample], list[Sample]]:
    """Holds out whole groups, with the classes as balanced as groups allow; the segments of a file are a group.

    If all are segments of one file, each is a group of its own.
    """
    # The order of the list must not matter.
    ordered = sorted(samples, key=lambda sample: os.path.relpath(sample.path, base) + str(sample.part))
    is_one_file = len({sample.path for sample in samples}) == 1
    groups = [sample.group or (sample.name if is_one_file else sample.path) for sample in ordered]
    labels = _find_rarest(ordered)
    most = max(Counter(labels).values())
    num_folds = min(max(round(1 / val_fraction), 2), len(set(groups)), most)
    if num_folds < 2:
        return list(samples), []
    held_out = _divide(labels, groups, num_folds)[0]
    # A group whose class would have no other samples is only used for training.
    kept = {labels[index] for index in set(range(len(ordered))) - set(held_out)}
    alone = {groups[index] for index in held_out if labels[index] not in kept}
    val_names = {ordered[index].name for index in held_out if groups[index] not in alone}
    train = [sample for sample in samples if sample.name not in val_names]
    return train, [sample for sample in samples if sample.name in val_names]


def split_folds(samples: Sequence[Sample], num_folds: int, base: str) -> list[list[Sample]]:
    """Divides samples into folds with balanced classes; the data set's folder and order do not matter.

    Each sample is in one fold. Groups, the segments of a file, and files of one class folder whose names agree up to a
    `_g01_` stay together; if all samples are segments of one file, each is a group of its own. `base` is the folder of
    the data set. Of several labels, the rarest one counts.
    """
    is_one_file = len({sample.path for sample in samples}) == 1
    rows = []
    for sample in samples:
        path = os.path.relpath(sample.path, base)
        folder, name = os.path.split(path)
        own = path + str(sample.part) if is_one_file else path
        # Folders above those of the classes, such as `train`, do not matter.
        recording = re.match(r".*_g\d+_", name)
        group = os.path.join(os.path.basename(folder), recording.group()) if recording else own
        rows.append((path + str(sample.part), sample.group or group, sample))
    rows.sort(key=itemgetter(0))
    groups, ordered = [group for _, group, _ in rows], [sample for *_, sample in rows]
    labels = _find_rarest(ordered)
    most, which = min(
        (max(Counter(labels).values()), "as many as the largest class has videos"),
        (len(set(groups)), "as many as there are videos, or groups of videos that stay together"),
    )
    folds = _divide(labels, groups, num_folds) if num_folds <= most else [[]]
    if not all(folds):
        raise InputError(f"dataset.folds={num_folds}: at most {most}, {which}")
    return [[ordered[index] for index in fold] for fold in folds]


def _divide(labels: Sequence[int], groups: Sequence[str], num_folds: int) -> list[list[int]]:
    """Divides the indices of samples into folds."""
    from sklearn.model_selection import StratifiedGroupKFold

    folds = StratifiedGroupKFold(num_folds, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about classes of few samples, which the catalog names
        return [fold.tolist() for _, fold in folds.split(groups, labels, groups)]
