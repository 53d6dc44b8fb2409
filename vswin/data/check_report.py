"""How `vswin data check` tells what it found: a table on the screen, a CSV, and clean lists."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from rich.console import Console

from vswin.atomic import replacing
from vswin.data.catalog import Catalog
from vswin.data.check_files import FileFacts
from vswin.data.check_findings import FAILURES, Finding, count_kinds, measure_balance, subsets_of, usual_size
from vswin.data.class_names import official_counts
from vswin.data.lists import ROLES
from vswin.data.records import VideoRecord
from vswin.schema import DatasetConfig
from vswin.tables import print_table
from vswin.wording import printable

_NUM_SHOWN = 3


def print_summary(console: Console, dataset: DatasetConfig, catalog: Catalog, facts: dict[str, FileFacts]) -> None:
    """Prints how much there is, for each subset.

    Args:
        console: where to.
        dataset: the data set.
        catalog: its videos.
        facts: what was found in the files that were looked at.
    """
    subsets = subsets_of(catalog)
    official = official_counts(dataset.name, dataset.split) or {}
    columns = []
    for subset, videos in subsets.items():
        known = [facts[video.path] for video in videos if video.path in facts]
        listed = len(videos) + len(catalog.missing.get(subset, ()))
        columns.append(
            {
                "listed": f"{listed:,}{_describe_difference(listed, official.get(subset))}",
                "there": f"{len(videos):,}",
                "usable": f"{sum(not fact.reason for fact in known):,}",
                **_describe_files([fact for fact in known if not fact.reason]),
                **_describe_balance(videos, catalog.class_names),
            }
        )
    lines = [["", *(ROLES[subset] for subset in subsets)]]
    for row in dict.fromkeys(key for column in columns for key in column):
        lines.append([row, *(column.get(row, "") for column in columns)])
    print_table(console, lines, texts=range(len(lines[0])))


def print_findings(console: Console, findings: Sequence[Finding], root: str) -> None:
    """Prints how many findings of each kind there are, and the first of them.

    Args:
        console: where to.
        findings: in the order of their kinds.
        root: folder of the videos, which is left out of their paths.
    """
    by_kind = count_kinds(findings)
    if not by_kind:
        console.print("[green]nothing is wrong[/green]")
    for kind, found in by_kind.items():
        style = "bold red" if kind in FAILURES else "bold yellow"
        console.print(f"[{style}]{kind}: {len(found):,}[/{style}]")
        for finding in found[:_NUM_SHOWN]:
            subject = _shorten(finding.path, root) if finding.path else finding.class_name
            console.print(f"  {printable(subject)}: {printable(finding.detail)}", markup=False, soft_wrap=True)
        if len(found) > _NUM_SHOWN:
            console.print(f"  and {len(found) - _NUM_SHOWN:,} more")


def write_report(path: Path, findings: Sequence[Finding]) -> None:
    """Writes a CSV with a line per finding: kind, subset, class, path, detail."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [("kind", "subset", "class", "path", "detail"), *findings]
    _write_csv(path, rows)


def write_clean_lists(folder: Path, catalog: Catalog, facts: dict[str, FileFacts], root: str) -> list[Path]:
    """Writes `train.csv`, `val.csv` and `test.csv`, path,label, of the videos that can be used.

    Args:
        folder: where to; is made if need be.
        catalog: the data set.
        facts: what was found in its files.
        root: folder of the videos; paths below it are written relative to it, as lists are read.

    Returns:
        The lists that were written: of the subsets that have videos.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # A name that is a number would be read as an index.
    has_numbers = any(name.removeprefix("-").isdecimal() for name in catalog.class_names)
    written = []
    for subset, videos in subsets_of(catalog).items():
        rows = [
            (_relative(video.path, root), str(video.label) if has_numbers else catalog.class_names[video.label])
            for video in videos
            if not facts[video.path].reason
        ]
        if rows:
            written.append(folder / f"{subset}.csv")
            _write_csv(written[-1], [("path", "label"), *rows])
    return written


def _describe_difference(listed: int, official: int | None) -> str:
    if official is None:
        return ""
    return " (all)" if listed == official else f" ({listed - official:+,} to the official {official:,})"


def _describe_files(usable: Sequence[FileFacts]) -> dict[str, str]:
    if not usable:
        return {}
    frames = sorted(fact.num_frames for fact in usable)
    height, width, share = usual_size(usable)
    return {
        "size on disk": _format_bytes(sum(fact.num_bytes for fact in usable)),
        "frames": f"{sum(frames):,}",
        "frames per video": f"{frames[0]:,} to {frames[-1]:,}, median {median(frames):,.0f}",
        "usual frame": f"{width} x {height} ({share:.0%})",
    }


def _describe_balance(videos: Sequence[VideoRecord], class_names: Sequence[str]) -> dict[str, str]:
    balance = measure_balance(videos, class_names)
    return {
        "smallest class": f"{balance.smallest[1]:,} ({balance.smallest[0]})",
        "median class": f"{balance.median:,.0f}",
        "largest class": f"{balance.largest[1]:,} ({balance.largest[0]})",
    }


def _format_bytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.1f} MB"


def _relative(path: str, root: str) -> str:
    absolute, base = os.path.abspath(path), os.path.abspath(root)
    return os.path.relpath(absolute, base) if absolute.startswith(base + os.sep) else absolute


def _shorten(path: str, root: str) -> str:
    base = os.path.join(root, "")
    return path[len(base) :] if path.startswith(base) else path


def _write_csv(path: Path, rows: Sequence[Sequence[str]]) -> None:
    with replacing(path) as partial, open(partial, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
