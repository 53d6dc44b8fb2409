"""The table of all evaluations: `results.json` for programs, `results.md` for people.

Every evaluation rewrites the Markdown from the JSON, so keep notes in another file.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vswin.atomic import locked, replacing
from vswin.errors import InputError
from vswin.evaluation.published import TOLERANCE_POINTS, Comparison, verdict
from vswin.runs.figures import difference_points
from vswin.runs.metrics import Metrics

_COMPARED = ("official", "difference", "verdict")
_HEADINGS = ["date", "weights", "data", "videos", "protocol", "top-1 %", *_COMPARED, "top-5 %", *_COMPARED]
_HEADINGS += ["clip top-1 %"]
_TEXT_COLUMNS = ("date", "weights", "data", "protocol", "verdict")


def append_result(
    folder: Path, metrics: Metrics, comparison: Comparison, protocol: Mapping[str, Any], report: Path
) -> None:
    """Adds an evaluation, whose report is in the folder `report`, to the table in `folder`.

    Several processes may do this at the same time.

    Raises:
        InputError: if the table cannot be read or written.
    """
    published = comparison.published
    record: dict[str, Any] = {
        **protocol,
        "report": str(report),
        "num_videos": metrics.num_videos,
        "num_bad_videos": metrics.num_bad_videos,
        "clip_top1": metrics.clip_top1,
        "clip_top5": metrics.clip_top5,
        "mean_class_accuracy": metrics.mean_class_accuracy,
        "official": published and published.name,
        "no_official": comparison.reason,
        "note": comparison.note,
    }
    for name in ("top1", "top5"):
        measured, interval = getattr(metrics, name), getattr(metrics, f"{name}_interval")
        record[name] = {"measured": measured, "interval": list(interval)}
        if published is not None:
            official, page = getattr(published, name) / 100, published.hub_page
            record[name] |= {
                "official": official,
                "hub_page": None if page is None else getattr(page, name) / 100,
                "difference_points": difference_points(measured, official),
                "verdict": verdict(measured, official, interval),
            }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".results.lock"):
            records = [*_read_records(folder / "results.json"), record]
            contents = {
                "results.json": json.dumps(records, indent=2, ensure_ascii=False) + "\n",
                "results.md": format_results(records),
            }
            for name, text in contents.items():
                with replacing(folder / name) as partial:
                    # Paths may contain bytes that are not UTF-8; JSON reads them back.
                    partial.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise InputError(
            f"the evaluation is complete and stands in {report}, but the table in results_dir={folder} cannot be "
            f"written: {error}; set results_dir to another folder, or null for no table"
        ) from error


def _read_records(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        records: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(records, list):
            raise TypeError("it holds no list")
        # Check the rows: foreign ones would end the Markdown table half-way.
        format_results(records)
        return records
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise InputError(
            f"{path} is no table of vswin ({error}); it is left as it is. Move it away, or set results_dir to another "
            "folder"
        ) from None


def format_results(records: Sequence[Mapping[str, Any]]) -> str:
    """Formats the records of `results.json` as Markdown, the whole of `results.md`, with the newest last."""
    rule = ["---" if heading in _TEXT_COLUMNS else "---:" for heading in _HEADINGS]
    rows: list[list[str]] = []
    notes: dict[str, None] = {}
    unmatched: dict[str, None] = {}
    for record in records:
        rows.append(_format_row(record))
        weights, data = _escape(str(record["weights"]["init_from"])), _escape(record["dataset"]["name"])
        if record["note"]:
            notes[f"- {weights}: {_escape(record['note'])}"] = None
        if record["no_official"]:
            unmatched[f"- {weights} on {data}: {_escape(record['no_official'])}"] = None
    parts = [
        "# Results",
        "",
        "In brackets the Wilson interval of 95 %: the range of true accuracies that so many videos allow for. A",
        f"difference of up to {TOLERANCE_POINTS} points counts as reproduced. Clip top-1 judges every view by itself,",
        "the other figures judge videos. `results.json` has the whole protocol of each row.",
        "",
        *(f"| {' | '.join(cells)} |" for cells in (_HEADINGS, rule, *rows)),
        "",
        *(["What the TF-Hub page says differently:", "", *notes, ""] if notes else []),
        *(["Without an official number:", "", *unmatched, ""] if unmatched else []),
    ]
    return "\n".join(parts)


def _format_row(record: Mapping[str, Any]) -> list[str]:
    dataset = record["dataset"]
    missing = f", {dataset['num_missing']:,} missing" if dataset.get("num_missing") else ""
    bad = f", {record['num_bad_videos']:,} bad" if record["num_bad_videos"] else ""
    stride = f"x{record['frame_stride']}" if record["sampling"] == "dense" else " segments"
    spacing = ", end to end" if record["sampling"] == "dense" and record["spacing"] == "end_to_end" else ""
    average = ", logits averaged" if record["average"] == "score" else ""
    views = f"{record['num_clips']}x{record['num_crops']} views of {record['crop']} px"
    cells = [
        _escape(record["date"].partition("T")[0]),
        _escape(str(record["weights"]["init_from"])),
        _escape(dataset["name"] + (f", split {dataset['split']}" if dataset.get("split") else "")),
        f"{record['num_videos']:,}{missing}{bad}",
        f"{record['num_frames']}{stride}, {views}{spacing}{average}",
    ]
    for accuracy in (record["top1"], record["top5"]):
        low, high = accuracy["interval"]
        cells.append(f"{100 * accuracy['measured']:.2f} ({100 * low:.2f} to {100 * high:.2f})")
        if "official" not in accuracy:
            cells += ["-", "-", "-"]
            continue
        official, page = accuracy["official"], accuracy["hub_page"]
        differs = page is not None and page != official
        cells += [
            f"{100 * official:.1f}" + (f" (TF-Hub page: {100 * page:.1f})" if differs else ""),
            f"{accuracy['difference_points']:+.2f}",
            _escape(accuracy["verdict"]),
        ]
    return [*cells, f"{100 * record['clip_top1']:.2f}"]


def _escape(text: str) -> str:
    """Escapes a name so that Markdown shows it unchanged: no cell, line, link or HTML begins in it."""
    shown = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*\[\]|~])", r"\\\1", shown)
