"""`vswin data check`: inspect every file of a data set before a training run fails on it."""

import csv
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import TypeVar

from vswin.atomic import replacing
from vswin.cluster import count_cores
from vswin.config.schema import DataCheckConfig, DatasetConfig
from vswin.console import Console, make_progress_bar, print_table, printable, say
from vswin.data.catalog import Catalog, describe_catalog, find_videos
from vswin.data.check_findings import (
    FAILURES,
    FileFacts,
    Finding,
    find_problems,
    hash_file,
    inspect_file,
    subsets_of,
)
from vswin.data.class_names import official_counts
from vswin.data.decoders import check_opencv
from vswin.data.frames import open_store
from vswin.data.lists import ROLES
from vswin.data.packed import is_packed
from vswin.data.records import VideoRecord
from vswin.errors import InputError

_SECONDS_BETWEEN_LINES = 10
# Printed findings of each kind.
_NUM_SHOWN = 3
# Files submitted to the threads at a time: objects for 240,000 files would take hundreds of megabytes.
_FILES_AT_ONCE = 1000

ResultT = TypeVar("ResultT")


def run_check(config: DataCheckConfig) -> None:
    """Inspects the files in parallel and reports what is wrong.

    Raises:
        InputError: if the data set or all of its videos are missing.
        SystemExit: with code 1, if videos are missing or broken.
        KeyboardInterrupt: after Ctrl-C, once the findings so far have been reported.
    """
    console = Console(soft_wrap=True)
    check_opencv()
    dataset = replace(config.dataset, allow_missing=True)
    if dataset.source == "tfds":
        raise InputError("dataset.source=tfds: there are no files to check; set dataset.source=videos")
    if is_packed(Path(dataset.root)):
        raise InputError(f"{dataset.root} is packed: its videos were compared with their files when it was written")
    catalog = find_videos(dataset)
    for line in (f"{dataset.name} in {dataset.root}: {describe_catalog(catalog)}", *catalog.notes):
        say(console, line)

    paths = list(dict.fromkeys(video.path for videos in subsets_of(catalog).values() for video in videos))
    facts: dict[str, FileFacts] = {}
    hashes: dict[str, str] = {}
    is_interrupted = False
    inspect = partial(
        inspect_file,
        decoder=dataset.decoder,
        timeout_sec=dataset.clip_timeout_sec,
        decode=config.decode,
        store=open_store(dataset),
    )
    try:
        for path, fact in _look(console, "decoding" if config.decode else "opening", inspect, paths):
            facts[path] = fact
        # Files of equal size may have the same content.
        usable = {path: fact.num_bytes for path, fact in facts.items() if not fact.reason}
        counts = Counter(usable.values())
        candidates = [path for path, num_bytes in usable.items() if counts[num_bytes] > 1]
        for path, digest in _look(console, "comparing", hash_file, candidates):
            hashes[path] = digest
    except KeyboardInterrupt:
        is_interrupted = True
        console.print(f"[bold]interrupted: {len(facts):,} of {len(paths):,} files were looked at[/bold]")

    findings = find_problems(catalog, facts, hashes, config.clip)
    print_summary(console, dataset, catalog, facts)
    print_findings(console, findings, dataset.root)
    if config.report is not None:
        write_report(Path(config.report), findings)
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
                    bar.advance(task)
                    num_broken += isinstance(result, FileFacts) and bool(result.reason)
                    if time.monotonic() - last > (1 if console.is_terminal else _SECONDS_BETWEEN_LINES):
                        last, note = time.monotonic(), f"{num_broken:,} broken" if num_broken else ""
                        bar.update(task, note=note)
                        if not console.is_terminal:
                            console.print(f"{verb}: {done:,} of {len(paths):,} files  {note}", soft_wrap=True)
    finally:
        executor.shutdown(cancel_futures=True)


def print_summary(console: Console, dataset: DatasetConfig, catalog: Catalog, facts: dict[str, FileFacts]) -> None:
    """Prints counts, sizes and class balance for each subset, from the inspected files."""
    subsets = subsets_of(catalog)
    official = official_counts(dataset.name, dataset.split) or {}
    columns = []
    for subset, videos in subsets.items():
        usable = [facts[video.path] for video in videos if video.path in facts and not facts[video.path].reason]
        num_listed = len(videos) + len(catalog.missing.get(subset, ()))
        difference = ""
        if subset in official:
            count = official[subset]
            difference = " (all)" if num_listed == count else f" ({num_listed - count:+,} to the official {count:,})"
        columns.append(
            {
                "listed": f"{num_listed:,}{difference}",
                "there": f"{len(videos):,}",
                "usable": f"{len(usable):,}",
                **_describe_files(usable),
                **_describe_balance(videos, catalog.class_names),
            }
        )
    lines = [["", *(ROLES[subset] for subset in subsets)]]
    for row in dict.fromkeys(key for column in columns for key in column):
        lines.append([row, *(column.get(row, "") for column in columns)])
    print_table(console, lines, texts=range(len(lines[0])))


def _describe_files(usable: Sequence[FileFacts]) -> dict[str, str]:
    if not usable:
        return {}
    num_bytes = sum(fact.num_bytes for fact in usable)
    frames = sorted(fact.num_frames for fact in usable)
    ((height, width), count), *_ = Counter((fact.height, fact.width) for fact in usable).most_common(1)
    return {
        "size on disk": f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.1f} MB",
        "frames": f"{sum(frames):,}",
        "frames per video": f"{frames[0]:,} to {frames[-1]:,}, median {median(frames):,.0f}",
        "usual frame": f"{width} x {height} ({count / len(usable):.0%})",
    }


def _describe_balance(videos: Sequence[VideoRecord], class_names: Sequence[str]) -> dict[str, str]:
    counts = Counter(video.label for video in videos)
    sizes = {name: counts[label] for label, name in enumerate(class_names)}
    smallest, largest = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
    return {
        "smallest class": f"{sizes[smallest]:,} ({smallest})",
        "median class": f"{median(sizes.values()):,.0f}",
        "largest class": f"{sizes[largest]:,} ({largest})",
    }


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


def write_report(path: Path, findings: Sequence[Finding]) -> None:
    """Writes a CSV with one line per finding: kind, subset, class, path, detail."""
    _write_csv(path, [("kind", "subset", "class", "path", "detail"), *findings])


def write_clean_lists(folder: Path, catalog: Catalog, facts: dict[str, FileFacts], root: str) -> list[Path]:
    """Writes the usable videos to `train.csv`, `val.csv` and `test.csv`, with the columns path,label.

    Paths below the root are relative to it, as `read_list` expects. Returns the written lists; empty subsets have none.
    """
    # A list reads a numeric name as an index.
    has_numbers = any(name.removeprefix("-").isdecimal() for name in catalog.class_names)
    base = os.path.abspath(root)
    written = []
    for subset, videos in subsets_of(catalog).items():
        rows = []
        for video in videos:
            if not facts[video.path].reason:
                path = os.path.abspath(video.path).removeprefix(base + os.sep)
                rows.append((path, str(video.label) if has_numbers else catalog.class_names[video.label]))
        if rows:
            written.append(folder / f"{subset}.csv")
            _write_csv(written[-1], [("path", "label"), *rows])
    return written


def _write_csv(path: Path, rows: Sequence[Sequence[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as scratch, open(scratch, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
