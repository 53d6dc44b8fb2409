"""What is wrong with a data set, from what was found in its files. Called by `vswin.data.check`."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from vswin.data.catalog import Catalog
from vswin.data.check_files import FileFacts
from vswin.data.lists import ROLES, TEST, TRAIN, VAL
from vswin.data.records import VideoRecord
from vswin.schema import ClipConfig
from vswin.wording import count_of

MISSING, BROKEN, LEAK, TWO_LABELS = "missing", "broken", "in training and validation", "two labels"
TEST_LEAK = "in the test set, too"
REPEATED, DUPLICATE, SHORT, SMALL, ODD_SIZE = "listed twice", "same content", "short", "small", "other size"
EMPTY_CLASS = "empty class"
# Most serious first; the first two make the check fail.
KINDS = (MISSING, BROKEN, LEAK, TEST_LEAK, TWO_LABELS, REPEATED, DUPLICATE, EMPTY_CLASS, SHORT, SMALL, ODD_SIZE)
FAILURES = (MISSING, BROKEN)

# With fewer files of one size than this, a data set has no usual size.
_USUAL_SHARE = 0.9


class Finding(NamedTuple):
    """One thing that is wrong.

    Attributes:
        kind: one of `KINDS`.
        subset: "train", "val" or "test".
        class_name: of the video.
        path: of the video; empty if a whole class is meant.
        detail: what was seen.
    """

    kind: str
    subset: str
    class_name: str
    path: str
    detail: str


@dataclass(frozen=True)
class Balance:
    """How many videos the classes of a subset have.

    Attributes:
        smallest: class with the fewest videos, and their number.
        median: number of videos of a class in the middle.
        largest: class with the most videos, and their number.
    """

    smallest: tuple[str, int]
    median: float
    largest: tuple[str, int]


def subsets_of(catalog: Catalog) -> dict[str, list[VideoRecord]]:
    """Gives the records of the subsets that have any."""
    videos = {TRAIN: catalog.train, VAL: catalog.val, TEST: catalog.test}
    return {subset: records for subset, records in videos.items() if records}


def find_problems(
    catalog: Catalog, facts: dict[str, FileFacts], hashes: dict[str, str], clip: ClipConfig
) -> list[Finding]:
    """Lists everything that is wrong.

    Args:
        catalog: the data set, with the missing videos.
        facts: what was found in the files, by path; a file that was not looked at has none.
        hashes: fingerprints of the files that may have the same content as others, by path.
        clip: what a clip needs.

    Returns:
        Findings, most serious kinds first, in the order of the lists.
    """
    findings = [
        *_find_misnamed(catalog),
        *_find_bad_files(catalog, facts, clip),
        *_find_odd_sizes(catalog, facts),
        *_find_same(catalog, hashes),
        *_find_empty_classes(catalog),
    ]
    return sorted(findings, key=lambda finding: KINDS.index(finding.kind))


def measure_balance(videos: Sequence[VideoRecord], class_names: Sequence[str]) -> Balance:
    """Counts the videos of each class; of several classes with as many, the first is named."""
    counts = Counter(video.label for video in videos)
    sizes = [(name, counts[label]) for label, name in enumerate(class_names)]
    return Balance(
        min(sizes, key=lambda size: size[1]), median(size for _, size in sizes), max(sizes, key=lambda size: size[1])
    )


def usual_size(facts: Sequence[FileFacts]) -> tuple[int, int, float]:
    """Finds the most common size of frames.

    Args:
        facts: of usable files, at least one.

    Returns:
        Height, width and the share of the files that have it.
    """
    (size, count), *_ = Counter((fact.height, fact.width) for fact in facts).most_common(1)
    return *size, count / len(facts)


def _find_misnamed(catalog: Catalog) -> Iterator[Finding]:
    """Finds lines of the lists that name no video, or one that was named before."""
    for kind, listed in ((MISSING, catalog.missing), (REPEATED, catalog.repeated)):
        for subset, videos in listed.items():
            for video in videos:
                yield Finding(kind, subset, catalog.class_names[video.label], video.path, video.place)


def _find_bad_files(catalog: Catalog, facts: dict[str, FileFacts], clip: ClipConfig) -> Iterator[Finding]:
    """Finds files that cannot be decoded, or that a clip does not fit into."""
    span = clip.num_frames if clip.sampling == "segments" else (clip.num_frames - 1) * clip.frame_stride + 1
    for subset, video, fact in _usable_or_not(catalog, facts):
        name = catalog.class_names[video.label]
        if fact.reason:
            yield Finding(BROKEN, subset, name, video.path, fact.reason)
            continue
        if fact.num_frames < span:
            yield Finding(SHORT, subset, name, video.path, f"{count_of(fact.num_frames, 'frame')}, a clip spans {span}")
        if min(fact.height, fact.width) < clip.crop / 2:
            detail = f"{fact.width} x {fact.height}, less than half of the crop of {clip.crop}"
            yield Finding(SMALL, subset, name, video.path, detail)


def _find_odd_sizes(catalog: Catalog, facts: dict[str, FileFacts]) -> Iterator[Finding]:
    """Finds files of other sizes, where nearly all have one."""
    usable = [fact for fact in facts.values() if not fact.reason]
    if not usable:
        return
    height, width, share = usual_size(usable)
    if share < _USUAL_SHARE:
        return
    for subset, video, fact in _usable_or_not(catalog, facts):
        if not fact.reason and (fact.height, fact.width) != (height, width):
            detail = f"{fact.width} x {fact.height}, nearly all are {width} x {height}"
            yield Finding(ODD_SIZE, subset, catalog.class_names[video.label], video.path, detail)


def _find_same(catalog: Catalog, hashes: dict[str, str]) -> Iterator[Finding]:
    """Finds videos that are there more than once, under one name or several; the first of them is not blamed."""
    first: dict[str, tuple[str, VideoRecord]] = {}
    for subset, videos in subsets_of(catalog).items():
        for video in videos:
            earlier_subset, earlier = first.setdefault(hashes.get(video.path, video.path), (subset, video))
            if earlier is video:
                continue
            is_same_path = earlier.path == video.path
            if earlier_subset != subset:
                kind = TEST_LEAK if subset == TEST else LEAK
            elif earlier.label != video.label:
                kind = TWO_LABELS
            else:
                kind = DUPLICATE
            name = catalog.class_names[earlier.label]
            detail = f"{'the same file' if is_same_path else earlier.path}, {ROLES[earlier_subset]}, {name}"
            yield Finding(kind, subset, catalog.class_names[video.label], video.path, f"as {detail}")


def _find_empty_classes(catalog: Catalog) -> Iterator[Finding]:
    for subset, videos in subsets_of(catalog).items():
        present = {video.label for video in videos}
        for label, name in enumerate(catalog.class_names):
            if label not in present:
                yield Finding(EMPTY_CLASS, subset, name, "", f"no {ROLES[subset]} videos")


def _usable_or_not(catalog: Catalog, facts: dict[str, FileFacts]) -> Iterator[tuple[str, VideoRecord, FileFacts]]:
    """Goes through the videos that were looked at, each file once."""
    seen: set[str] = set()
    for subset, videos in subsets_of(catalog).items():
        for video in videos:
            if video.path in facts and video.path not in seen:
                seen.add(video.path)
                yield subset, video, facts[video.path]


def count_kinds(findings: Sequence[Finding]) -> dict[str, list[Finding]]:
    """Sorts findings by kind, most serious first; kinds without any are left out."""
    by_kind: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        by_kind[finding.kind].append(finding)
    return dict(by_kind)
