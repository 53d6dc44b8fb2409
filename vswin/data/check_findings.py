"""Inspect the files of a data set and find what is wrong with them. Called by `vswin.data.check`."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from vswin.config.schema import ClipConfig
from vswin.console import count_of
from vswin.data.catalog import Catalog
from vswin.data.decode import VIDEO_FILES, VideoStore
from vswin.data.lists import ROLES, TEST, TRAIN, VAL
from vswin.data.records import VideoRecord
from vswin.errors import DecodeError

MISSING, BROKEN, LEAK, TWO_LABELS = "missing", "broken", "in training and validation", "two labels"
TEST_LEAK = "in the test set, too"
REPEATED, DUPLICATE, SHORT, SMALL, ODD_SIZE = "listed twice", "same content", "short", "small", "other size"
EMPTY_CLASS = "empty class"
# Most serious first; the first two make the check fail.
KINDS = (MISSING, BROKEN, LEAK, TEST_LEAK, TWO_LABELS, REPEATED, DUPLICATE, EMPTY_CLASS, SHORT, SMALL, ODD_SIZE)
FAILURES = (MISSING, BROKEN)

# Enough frames to see that a file decodes, and few enough to inspect a hundred files per second.
_NUM_FIRST_FRAMES = 8
_FRAMES_AT_ONCE = 1000
_BYTES_AT_ONCE = 1 << 20
# A data set has a usual frame size if at least this fraction of its files has it.
_USUAL_SHARE = 0.9


class FileFacts(NamedTuple):
    """What `inspect_file` found in a file.

    Attributes:
        num_bytes: file size.
        num_frames: pictures in the file; the last ones are only verified if all were decoded; 0 for an unusable file.
        height: frame height in pixels, as a player shows it.
        width: frame width in pixels.
        reason: why the file is unusable; empty if it is usable.
    """

    num_bytes: int
    num_frames: int = 0
    height: int = 0
    width: int = 0
    reason: str = ""


class Finding(NamedTuple):
    """One problem, with a kind from `KINDS`; the path is empty if the problem concerns a whole class."""

    kind: str
    subset: str
    class_name: str
    path: str
    detail: str


def inspect_file(
    path: str, decoder: str, timeout_sec: float | None, decode: bool, store: VideoStore = VIDEO_FILES
) -> FileFacts:
    """Opens a file, counts its frames and decodes the first few within the time limit, or all without a limit."""
    num_bytes = 0
    try:
        num_bytes = os.path.getsize(path)
        with store.open(path, decoder, None if decode else timeout_sec) as reader:
            num_frames = reader.num_video_frames
            wanted = np.arange(num_frames if decode else min(num_frames, _NUM_FIRST_FRAMES))
            for start in range(0, len(wanted), _FRAMES_AT_ONCE):
                reader.read(wanted[start : start + _FRAMES_AT_ONCE], _corner)
            return FileFacts(num_bytes, num_frames - len(reader.repeats), *reader.frame_size)
    except DecodeError as error:
        return FileFacts(num_bytes, reason=error.reason)
    except Exception as error:  # whatever goes wrong in a decoder, the other files must still be inspected
        return FileFacts(num_bytes, reason=f"{type(error).__name__}: {error}")


def _corner(frame: np.ndarray) -> np.ndarray:
    return frame[:1, :1]


def hash_file(path: str) -> str:
    """Computes a fingerprint of a file's content; returns the path, which is unique, if the file is unreadable."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open(path, "rb") as file:
            while chunk := file.read(_BYTES_AT_ONCE):
                digest.update(chunk)
    except OSError:
        return path
    return digest.hexdigest()


def subsets_of(catalog: Catalog) -> dict[str, list[VideoRecord]]:
    """Returns the records of each non-empty subset."""
    videos = {TRAIN: catalog.train, VAL: catalog.val, TEST: catalog.test}
    return {subset: records for subset, records in videos.items() if records}


def find_problems(
    catalog: Catalog, facts: dict[str, FileFacts], hashes: dict[str, str], clip: ClipConfig
) -> list[Finding]:
    """Lists all problems, the most serious kinds first, in the order of the lists.

    `facts` holds the facts of each inspected file by path; `hashes` holds fingerprints by path of the files that may
    have the same content as others.
    """
    findings = [
        *_find_misnamed(catalog),
        *_find_bad_files(catalog, facts, clip),
        *_find_same(catalog, hashes),
        *_find_empty_classes(catalog),
    ]
    return sorted(findings, key=lambda finding: KINDS.index(finding.kind))


def _find_misnamed(catalog: Catalog) -> Iterator[Finding]:
    """Finds list lines that name a missing video, or a video that an earlier line names."""
    for kind, listed in ((MISSING, catalog.missing), (REPEATED, catalog.repeated)):
        for subset, videos in listed.items():
            for video in videos:
                yield Finding(kind, subset, catalog.class_names[video.label], video.path, video.place)


def _find_bad_files(catalog: Catalog, facts: dict[str, FileFacts], clip: ClipConfig) -> Iterator[Finding]:
    """Finds files that cannot be decoded, that are too short or too small for a clip, or that have an unusual size."""
    span = clip.num_frames if clip.sampling == "segments" else (clip.num_frames - 1) * clip.frame_stride + 1
    sizes = Counter((fact.height, fact.width) for fact in facts.values() if not fact.reason)
    (usual, count), *_ = sizes.most_common(1) or [((0, 0), 0)]
    has_usual = count >= _USUAL_SHARE * sizes.total()
    seen: set[str] = set()
    for subset, videos in subsets_of(catalog).items():
        for video in videos:
            if video.path not in facts or video.path in seen:
                continue
            seen.add(video.path)
            fact, name = facts[video.path], catalog.class_names[video.label]
            size = f"{fact.width} x {fact.height}"
            if fact.reason:
                yield Finding(BROKEN, subset, name, video.path, fact.reason)
                continue
            if fact.num_frames < span:
                detail = f"{count_of(fact.num_frames, 'frame')}, a clip spans {span}"
                yield Finding(SHORT, subset, name, video.path, detail)
            if min(fact.height, fact.width) < clip.crop / 2:
                detail = f"{size}, less than half of the crop of {clip.crop}"
                yield Finding(SMALL, subset, name, video.path, detail)
            if has_usual and (fact.height, fact.width) != usual:
                detail = f"{size}, nearly all are {usual[1]} x {usual[0]}"
                yield Finding(ODD_SIZE, subset, name, video.path, detail)


def _find_same(catalog: Catalog, hashes: dict[str, str]) -> Iterator[Finding]:
    """Finds videos that repeat an earlier video, under the same name or another."""
    first: dict[str, tuple[str, VideoRecord]] = {}
    for subset, videos in subsets_of(catalog).items():
        for video in videos:
            earlier_subset, earlier = first.setdefault(hashes.get(video.path, video.path), (subset, video))
            if earlier is video:
                continue
            if earlier_subset != subset:
                kind = TEST_LEAK if subset == TEST else LEAK
            else:
                kind = DUPLICATE if earlier.label == video.label else TWO_LABELS
            path = "the same file" if earlier.path == video.path else earlier.path
            detail = f"as {path}, {ROLES[earlier_subset]}, {catalog.class_names[earlier.label]}"
            yield Finding(kind, subset, catalog.class_names[video.label], video.path, detail)


def _find_empty_classes(catalog: Catalog) -> Iterator[Finding]:
    for subset, videos in subsets_of(catalog).items():
        present = {video.label for video in videos}
        for label, name in enumerate(catalog.class_names):
            if label not in present:
                yield Finding(EMPTY_CLASS, subset, name, "", f"no {ROLES[subset]} videos")
