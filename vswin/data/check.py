"""`vswin data check`: inspect every file of a data set before a training run fails on it."""

import csv
import hashlib
import math
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple, TypeVar

import numpy as np

from vswin.atomic import replacing
from vswin.cluster import count_cores
from vswin.config.schema import ClipConfig, DataCheckConfig, DatasetConfig
from vswin.console import Console, count_of, make_progress_bar, print_table, printable, say
from vswin.data.catalog import Catalog, describe_catalog, find_videos
from vswin.data.class_names import official_counts
from vswin.data.decode import USUAL_RATE, VIDEO_FILES, FrameReader, VideoStore, list_files
from vswin.data.decoders import check_opencv
from vswin.data.frames import open_store
from vswin.data.lists import ListEntry, make_table
from vswin.data.packed import is_packed
from vswin.data.samples import ROLES, TEST, Sample, Segment, name_labels, split_name
from vswin.errors import DecodeError, InputError

# Kinds of findings, most serious first; the first two make the check fail.
KINDS = (
    *("missing", "broken", "in training and validation", "in the test set, too", "two labels", "listed twice"),
    *("same content", "overlap", "beyond the end", "empty class", "short", "small", "other size"),
)
FAILURES = KINDS[:2]

# Enough frames to see that a file decodes, and few enough to inspect a hundred files per second.
_NUM_FIRST_FRAMES = 8
_FRAMES_AT_ONCE = 1000
# Files submitted to the threads at a time: objects for 240,000 files would take hundreds of megabytes.
_FILES_AT_ONCE = 1000
_BYTES_AT_ONCE = 1 << 20
_SECONDS_BETWEEN_LINES = 10
# A data set has a usual frame size if at least this fraction of its files has it.
_USUAL_FRACTION = 0.9
# Printed findings of each kind.
_NUM_SHOWN = 3

ResultT = TypeVar("ResultT")


class FileFacts(NamedTuple):
    """What `inspect_file` found in a file; pixels are as a player shows them."""

    num_bytes: int
    num_frames: int = 0  # pictures; the last ones are only verified if all were decoded
    height: int = 0
    width: int = 0
    reason: str = ""  # why the file is unusable
    lacking: str = ""  # how much of a segment lies beyond the end of the video


class Finding(NamedTuple):
    """One problem, with a kind from `KINDS`; the path is empty if the problem concerns a whole class."""

    kind: str
    subset: str
    class_name: str
    path: str
    detail: str


def run_check(config: DataCheckConfig) -> None:
    """Inspects the files in parallel and reports what is wrong, after Ctrl-C what was found so far.

    Ends with code 1 if videos are missing or broken.
    """
    console = Console(soft_wrap=True)
    check_opencv()
    dataset = replace(config.dataset, allow_missing=True)
    if dataset.source == "tfds":
        raise InputError("dataset.source=tfds: there are no files to check; set dataset.source=videos")
    if is_packed(Path(dataset.root)):
        raise InputError(f"{dataset.root} is packed: its videos were compared with their files when it was written")
    catalog = find_videos(dataset)
    for line in (f"{dataset.shown_name} in {dataset.root}: {describe_catalog(catalog)}", *catalog.notes):
        say(console, line)

    names = list(dict.fromkeys(video.name for videos in catalog.subsets.values() for video in videos))
    facts: dict[str, FileFacts] = {}
    hashes: dict[str, str] = {}
    is_interrupted = False
    limit, store = dataset.clip_timeout_sec, open_store(dataset)
    inspect = partial(inspect_file, decoder=dataset.decoder, timeout_sec=limit, decode=config.decode, store=store)
    try:
        facts.update(_look(console, "decoding" if config.decode else "opening", inspect, names))
        # Files of equal size may have the same content.
        usable = {split_name(name)[0]: fact.num_bytes for name, fact in facts.items() if not fact.reason}
        counts = Counter(usable.values())
        candidates = [path for path, num_bytes in usable.items() if counts[num_bytes] > 1]
        hashes.update(_look(console, "comparing", hash_file, candidates))
    except KeyboardInterrupt:
        is_interrupted = True
        console.print(f"[bold]interrupted: {len(facts):,} of {len(names):,} samples were looked at[/bold]")

    findings = find_problems(catalog, facts, hashes, config.clip)
    print_summary(console, dataset, catalog, facts)
    print_findings(console, findings, dataset.root)
    if config.report is not None:
        _write_csv(Path(config.report), [("kind", "subset", "class", "path", "detail"), *findings])
        console.print(printable(f"report: {config.report}"), markup=False, soft_wrap=True)
    if is_interrupted:
        raise KeyboardInterrupt
    if config.clean_lists is not None:
        written = write_clean_lists(Path(config.clean_lists), catalog, facts, dataset.root)
        keys = " ".join(f"dataset.{path.stem}_list={path}" for path in written)
        console.print(printable(f"clean lists: {keys}"), markup=False, soft_wrap=True)
    if any(finding.kind in FAILURES for finding in findings):
        raise SystemExit(1)


def _look(
    console: Console, verb: str, work: Callable[[str], ResultT], paths: Sequence[str]
) -> Iterator[tuple[str, ResultT]]:
    """Yields each path with its result and shows a progress bar; without a terminal, a line every ten seconds."""
    executor = ThreadPoolExecutor(count_cores())  # decoders and hashes release Python's lock
    num_broken, last = 0, time.monotonic()
    try:
        with make_progress_bar(console, "files") as bar:
            task = bar.add_task(verb, total=len(paths), note="")
            for start in range(0, len(paths), _FILES_AT_ONCE):
                some = paths[start : start + _FILES_AT_ONCE]
                for done, (path, result) in enumerate(zip(some, executor.map(work, some), strict=True), start + 1):
                    yield path, result
                    num_broken += isinstance(result, FileFacts) and bool(result.reason)
                    note = f"{num_broken:,} broken" if num_broken else ""
                    bar.update(task, advance=1, note=note)
                    if not console.is_terminal and time.monotonic() - last > _SECONDS_BETWEEN_LINES:
                        last = time.monotonic()
                        console.print(f"{verb}: {done:,} of {len(paths):,} files  {note}", soft_wrap=True)
    finally:
        executor.shutdown(cancel_futures=True)


def inspect_file(
    name: str, decoder: str, timeout_sec: float | None, decode: bool, store: VideoStore = VIDEO_FILES
) -> FileFacts:
    """Opens a sample, counts its frames and decodes the first few within the time limit, or all without a limit."""
    num_bytes = 0
    path, part = split_name(name)
    try:
        num_bytes = sum(map(os.path.getsize, list_files(path)))
        with store.open(path, decoder, None if decode else timeout_sec, part) as reader:
            num_frames = reader.num_video_frames
            wanted = np.arange(num_frames if decode else min(num_frames, _NUM_FIRST_FRAMES))
            for start in range(0, len(wanted), _FRAMES_AT_ONCE):
                reader.read(wanted[start : start + _FRAMES_AT_ONCE], _corner)
            lacking = "" if part.segment is None else _find_lacking(part.segment, reader)
            return FileFacts(num_bytes, num_frames - len(reader.repeats), *reader.frame_size, lacking=lacking)
    except DecodeError as error:
        return FileFacts(num_bytes, reason=error.reason)
    except Exception as error:  # whatever goes wrong in a decoder, the other files must still be inspected
        return FileFacts(num_bytes, reason=f"{type(error).__name__}: {error}")


def _find_lacking(segment: Segment, reader: FrameReader) -> str:
    """Tells whether a segment ends more than two frames after the video."""
    if segment.end == math.inf:
        return ""
    if segment.in_frames:
        is_lacking, end = reader.num_video_frames < segment.end - segment.start - 2, f"frame {segment.end:.0f}"
    else:
        last, rate = reader.read_times()[-1], float(reader.frame_rate or USUAL_RATE)
        is_lacking, end = last + 3 / rate < segment.end, f"{segment.end:g} s"
    return f"the segment ends at {end}, the video before it" if is_lacking else ""


def _corner(frame: np.ndarray) -> np.ndarray:
    return frame[:1, :1]


def hash_file(path: str) -> str:
    """Computes a fingerprint of a file's content; returns the path, which is unique, if the file is unreadable."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        for name in list_files(path):
            with open(name, "rb") as file:
                while chunk := file.read(_BYTES_AT_ONCE):
                    digest.update(chunk)
    except OSError:
        return path
    return digest.hexdigest()


def find_problems(
    catalog: Catalog, facts: dict[str, FileFacts], hashes: dict[str, str], clip: ClipConfig
) -> list[Finding]:
    """Lists all problems, the most serious kinds first, in the order of the lists.

    `facts` holds the facts of each inspected file by path; `hashes` holds fingerprints by path of the files that may
    have the same content as others.
    """
    names = catalog.class_names
    findings = [
        Finding(kind, subset, name_labels(entry.labels, names), entry.path, entry.where)
        for kind, unused in (("missing", catalog.missing), ("listed twice", catalog.repeated))
        for subset, entries in unused.items()
        for entry in entries
    ]
    span = clip.num_frames if clip.sampling == "segments" else (clip.num_frames - 1) * clip.frame_stride + 1
    sizes = Counter((fact.height, fact.width) for fact in facts.values() if not fact.reason)
    usual, count = sizes.most_common(1)[0] if sizes else ((0, 0), 0)
    if count < _USUAL_FRACTION * sizes.total():
        usual = (0, 0)
    first: dict[str, tuple[str, Sample]] = {}
    inspected: set[str] = set()
    for subset, videos in catalog.subsets.items():
        for video in videos:
            name = name_labels(video.labels, names)
            if video.name in facts and video.name not in inspected:
                inspected.add(video.name)
                kinds = _judge(facts[video.name], clip, span, usual)
                findings += [Finding(kind, subset, name, video.name, detail) for kind, detail in kinds]
            # A video may repeat an earlier one, under the same name or another.
            key = f"{hashes.get(video.path, video.path)}{video.part}"
            earlier_subset, earlier = first.setdefault(key, (subset, video))
            if earlier is not video:
                if earlier_subset != subset:
                    kind = "in the test set, too" if subset == TEST else "in training and validation"
                else:
                    kind = "same content" if earlier.labels == video.labels else "two labels"
                path = "the same file" if earlier.path == video.path else earlier.name
                detail = f"as {path}, {ROLES[earlier_subset]}, {name_labels(earlier.labels, names)}"
                findings.append(Finding(kind, subset, name, video.name, detail))
        absent = sorted(set(range(len(names))) - {label for video in videos for label in video.labels})
        findings += [Finding("empty class", subset, names[i], "", f"no {ROLES[subset]} videos") for i in absent]
    findings += _find_overlaps(catalog)
    return sorted(findings, key=lambda finding: KINDS.index(finding.kind))


def _find_overlaps(catalog: Catalog) -> Iterator[Finding]:
    """Yields samples that share time with an earlier segment of their video, in another subset or in the same box."""
    samples: dict[str, list[tuple[str, Sample]]] = defaultdict(list)
    for subset, videos in catalog.subsets.items():
        for video in videos:
            samples[video.path].append((subset, video))
    for some in samples.values():
        for in_frames in sorted({video.part.segment.in_frames for _, video in some if video.part.segment}):
            # A whole video overlaps all its segments.
            spans = [(video.part.segment or Segment(0, math.inf, in_frames), subset, video) for subset, video in some]
            spans = sorted((span for span in spans if span[0].in_frames == in_frames), key=lambda span: span[0])
            latest: dict[object, tuple[Segment, str, Sample]] = {}
            for segment, subset, video in spans:
                for before, other, earlier in latest.values():
                    is_alike = other != subset or earlier.part.region == video.part.region
                    if is_alike and segment.start < before.end:
                        kind = "overlap" if other == subset else "in training and validation"
                        kind = "in the test set, too" if other != subset and TEST in (other, subset) else kind
                        part = str(earlier.part)[1:] or "the whole video"
                        before_name, name = (name_labels(s.labels, catalog.class_names) for s in (earlier, video))
                        yield Finding(kind, subset, name, video.name, f"overlaps {part}, {ROLES[other]}, {before_name}")
                key = subset, video.part.region
                if key not in latest or segment.end > latest[key][0].end:
                    latest[key] = segment, subset, video


def _judge(fact: FileFacts, clip: ClipConfig, span: int, usual: tuple[int, int]) -> Iterator[tuple[str, str]]:
    """Yields kind and detail if a file cannot be decoded, is too short or small for a clip, or has an unusual size."""
    if fact.reason:
        yield "broken", fact.reason
        return
    if fact.lacking:
        yield "beyond the end", fact.lacking
    size = f"{fact.width} x {fact.height}"
    if fact.num_frames < span:
        yield "short", f"{count_of(fact.num_frames, 'frame')}, a clip spans {span}"
    if min(fact.height, fact.width) < clip.crop / 2:
        yield "small", f"{size}, less than half of the crop of {clip.crop}"
    if usual not in ((0, 0), (fact.height, fact.width)):
        yield "other size", f"{size}, nearly all are {usual[1]} x {usual[0]}"


def print_summary(console: Console, dataset: DatasetConfig, catalog: Catalog, facts: dict[str, FileFacts]) -> None:
    """Prints counts, sizes and class balance for each subset, from the inspected files."""
    official = official_counts(dataset.name, dataset.split) or {}
    columns = []
    for subset, videos in catalog.subsets.items():
        usable = [facts[video.name] for video in videos if video.name in facts and not facts[video.name].reason]
        num_listed = len(videos) + len(catalog.missing.get(subset, ()))
        difference = ""
        if subset in official:
            count = official[subset]
            difference = " (all)" if num_listed == count else f" ({num_listed - count:+,} to the official {count:,})"
        column = {"listed": f"{num_listed:,}{difference}", "there": f"{len(videos):,}", "usable": f"{len(usable):,}"}
        if usable:
            num_bytes = sum(
                {video.path: facts[video.name].num_bytes for video in videos if video.name in facts}.values()
            )
            frames = sorted(fact.num_frames for fact in usable)
            ((height, width), count), *_ = Counter((fact.height, fact.width) for fact in usable).most_common(1)
            column |= {
                "size on disk": f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.1f} MB",
                "frames": f"{sum(frames):,}",
                "frames per video": f"{frames[0]:,} to {frames[-1]:,}, median {median(frames):,.0f}",
                "usual frame": f"{width} x {height} ({count / len(usable):.0%})",
            }
        counts = Counter(label for video in videos for label in video.labels)
        of_class = {name: counts[label] for label, name in enumerate(catalog.class_names)}
        smallest, largest = min(of_class, key=of_class.__getitem__), max(of_class, key=of_class.__getitem__)
        column |= {
            "smallest class": f"{of_class[smallest]:,} ({smallest})",
            "median class": f"{median(of_class.values()):,.0f}",
            "largest class": f"{of_class[largest]:,} ({largest})",
        }
        columns.append(column)
    lines = [["", *(ROLES[subset] for subset in catalog.subsets)]]
    for row in dict.fromkeys(key for column in columns for key in column):
        lines.append([row, *(column.get(row, "") for column in columns)])
    print_table(console, lines, texts=range(len(lines[0])))


def print_findings(console: Console, findings: Sequence[Finding], root: str) -> None:
    """Prints the number of findings of each kind and the first few of them, with paths relative to the root."""
    by_kind: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        by_kind[finding.kind].append(finding)
    if not by_kind:
        console.print("[green]nothing is wrong[/green]")
    for kind, found in by_kind.items():
        style = "bold red" if kind in FAILURES else "bold yellow"
        console.print(f"[{style}]{kind}: {len(found):,}[/{style}]")
        for finding in found[:_NUM_SHOWN]:
            subject = finding.path.removeprefix(os.path.join(root, "")) or finding.class_name
            console.print(f"  {printable(subject)}: {printable(finding.detail)}", markup=False, soft_wrap=True)
        if len(found) > _NUM_SHOWN:
            console.print(f"  and {len(found) - _NUM_SHOWN:,} more")


def write_clean_lists(folder: Path, catalog: Catalog, facts: dict[str, FileFacts], root: str) -> list[Path]:
    """Writes the usable samples to `train.csv`, `val.csv` and `test.csv`, see `make_table`.

    Paths below the root are relative to it, as `read_list` expects. Returns the written lists; empty subsets have none.
    """
    # A list reads a numeric name as an index.
    has_numbers = any(name.removeprefix("-").isdecimal() for name in catalog.class_names)
    base = os.path.abspath(root)
    written = []
    for subset, videos in catalog.subsets.items():
        entries = [
            ListEntry(
                *("", 0, os.path.abspath(video.path).removeprefix(base + os.sep)),
                ";".join(map(str, video.labels)) if has_numbers else name_labels(video.labels, catalog.class_names),
                part=video.part,
                group=video.group,
            )
            for video in videos
            if not facts[video.name].reason
        ]
        if entries:
            written.append(folder / f"{subset}.csv")
            _write_csv(written[-1], make_table(entries))
    return written


def _write_csv(path: Path, rows: Sequence[Sequence[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as scratch, open(scratch, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
