"""Write labels for annotation tools and as lists of vswin: `WRITERS` has a function for each format."""

import csv
import io
import json
import math
import mimetypes
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple
from xml.etree import ElementTree

from vswin.console import count_of
from vswin.data.lists import ListEntry, make_table
from vswin.data.samples import TEST, TRAIN, VAL, Part, Segment
from vswin.errors import InputError

_SUBSETS = {TRAIN: "training", VAL: "validation", TEST: "testing", "": ""}
_MOST_TAGS = 1_000_000
_SCHEMA = "http://www.w3.org/2001/XMLSchema-instance"


class Writer(NamedTuple):
    """A format: the function that makes the text of a file, and what the format holds beside paths and labels."""

    write: Callable[[Sequence[ListEntry]], str]
    title: str
    holds: frozenset[str]  # of "whole" (videos without a segment), "segment", "box", "open" (no end), "group", "subset"
    unit: str = "seconds"  # of times: "seconds", "frames" or "both"
    has_one_video: bool = False


def write_labels(entries: Sequence[ListEntry], to: str, fps: float | None, notes: list[str]) -> str:
    """Makes the text of a file in the format `to`, a key of `WRITERS`.

    `fps`, if the entries state no rate, turns seconds into frames, rounded, or back (in lists, too). `notes` gets
    sentences about what is left out or rounded; an `InputError` names the first entry whose segment or box the format
    cannot hold.
    """
    writer = WRITERS[to]
    written, num_rounded = [], 0
    for entry in entries:
        segment, region = entry.part
        needs = {"segment" if segment else "whole"} | ({"box"} if region else set())
        needs |= {"open"} if segment and segment.end == math.inf else set()
        if lacking := sorted(needs - writer.holds):
            what = {"whole": "videos without times", "open": "segments without an end"}.get(
                lacking[0], f"a {lacking[0]}"
            )
            raise InputError(f"{entry.where}{entry.part}: {writer.title} cannot hold {what}; convert to another format")
        unit = ("seconds" if fps else "") if writer.unit == "both" else writer.unit
        if segment and unit and segment.in_frames != (unit == "frames"):
            rate = entry.rate or fps
            if not rate:
                raise InputError(
                    f"{entry.where}{entry.part}: {writer.title} has times in {writer.unit}; give the frames per second "
                    "of the videos with --fps"
                )
            moved = _in_other_unit(segment, rate)
            edges = zip(moved[:2], segment[:2], strict=True)
            num_rounded += moved.in_frames and any(abs(new / rate - old) > 1e-6 * (1 + old) for new, old in edges)
            entry = entry._replace(part=Part(moved, region), rate=rate if moved.in_frames else entry.rate)
        written.append(entry)
    if writer.has_one_video and len({entry.path for entry in entries}) > 1:
        raise InputError(
            f"{writer.title} has one video in each file, and the labels are of "
            f"{count_of(len({entry.path for entry in entries}), 'video')}; convert the labels of each one by itself"
        )
    for what in ("group", "subset"):
        lost = sum(bool(getattr(entry, what)) for entry in entries)
        if lost and what not in writer.holds:
            notes.append(f"left out, because {writer.title} cannot hold it: the {what} of {count_of(lost, 'label')}")
    if num_rounded:
        notes.append(f"times rounded to whole frames: those of {count_of(num_rounded, 'label')}")
    return writer.write(written)


def _in_other_unit(segment: Segment, rate: float) -> Segment:
    if segment.in_frames:
        return Segment(segment.start / rate, segment.end / rate)
    first = round(segment.start * rate)
    return Segment(first, max(first + 1, round(segment.end * rate)), in_frames=True)


def _times(entry: ListEntry) -> tuple[float, float]:
    assert entry.part.segment is not None  # see `Writer.holds`
    return entry.part.segment.start, entry.part.segment.end


def _as_json(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def _by_path(entries: Sequence[ListEntry]) -> dict[str, list[ListEntry]]:
    videos: dict[str, list[ListEntry]] = defaultdict(list)
    for entry in entries:
        videos[entry.path].append(entry)
    return videos


def _write_csv(entries: Sequence[ListEntry]) -> str:
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n").writerows(make_table(entries))
    return file.getvalue()


def _write_label_studio(entries: Sequence[ListEntry]) -> str:
    """Writes a task for each video; its frames count from 1, and the last one belongs to its range."""
    tasks = []
    videos: dict[tuple[object, ...], list[ListEntry]] = defaultdict(list)
    for entry in entries:
        videos[entry.path, entry.group, entry.subset, entry.rate].append(entry)
    for (path, *_), some in videos.items():
        results = []
        for entry in some:
            name, kind = ("videoLabels", "timelinelabels") if entry.part.segment else ("choice", "choices")
            value: dict[str, Any] = {kind: [entry.label]}
            if entry.part.segment:
                start, end = _times(entry)
                value["ranges"] = [{"start": int(start) + 1, "end": int(end)}]
            results.append({"from_name": name, "to_name": "video", "type": kind, "value": value})
        data = {"video": path} | ({"fps": some[0].rate} if some[0].rate else {})
        data |= {name: text for name, text in (("group", some[0].group), ("split", some[0].subset)) if text}
        tasks.append({"data": data, "annotations": [{"result": results}]})
    return _as_json(tasks)


def _write_activitynet(entries: Sequence[ListEntry]) -> str:
    subsets = {entry.path: entry.subset for entry in entries}
    if other := next((entry for entry in entries if entry.subset != subsets[entry.path]), None):
        raise InputError(f"{other.where}: ActivityNet has one subset for each video, and this one is in two")
    database = {
        path: {
            "subset": _SUBSETS[some[0].subset],
            "annotations": [{"segment": list(_times(entry)), "label": entry.label} for entry in some],
        }
        for path, some in _by_path(entries).items()
    }
    return _as_json({"version": "VERSION 1.3", "taxonomy": [], "database": database})


def _write_via(entries: Sequence[ListEntry]) -> str:
    """Writes segments with the attribute 1, and labels of whole videos with the attribute 2."""
    names = {path: str(number) for number, path in enumerate(_by_path(entries), start=1)}
    files = {fid: {"fid": fid, "fname": path, "type": 4, "loc": 1, "src": ""} for path, fid in names.items()}
    options = {label: label for label in sorted({entry.label for entry in entries})}
    attributes = {
        key: {"aname": name, "anchor_id": anchor, "type": 4, "desc": "", "options": options, "default_option_id": ""}
        for key, name, anchor in (("1", "TEMPORAL-SEGMENTS", "FILE1_Z2_XY0"), ("2", "label", "FILE1_Z0_XY0"))
    }
    metadata = {}
    for number, entry in enumerate(entries, start=1):
        fid, times = names[entry.path], list(_times(entry)) if entry.part.segment else []
        item = {"vid": fid, "flg": 0, "z": times, "xy": [], "av": {"1" if times else "2": entry.label}}
        metadata[f"{fid}_{number:08d}"] = item
    project = {"pid": "__VIA_PROJECT_ID__", "rev": "__VIA_PROJECT_REV_ID__", "pname": "vswin", "creator": "vswin"}
    project |= {"rev_timestamp": "__VIA_PROJECT_REV_TIMESTAMP__", "data_format_version": "3.1.1"}
    views = {fid: {"fid_list": [fid]} for fid in files}
    config = {"file": {"loc_prefix": {"1": "", "2": "", "3": "", "4": ""}}}
    content = {"project": project | {"created": 0, "vid_list": list(views)}, "config": config}
    return _as_json(content | {"attribute": attributes, "file": files, "metadata": metadata, "view": views})


def _write_osl(entries: Sequence[ListEntry]) -> str:
    samples = [
        {
            "id": f"sample_{number:06d}",
            "inputs": [{"type": "video", "path": entry.path}],
            "labels": {"action": {"label": entry.label}},
        }
        for number, entry in enumerate(entries, start=1)
    ]
    labels = {"action": {"type": "single_label", "labels": sorted({entry.label for entry in entries})}}
    content = {"version": "2.0", "task": "action_classification", "modalities": ["video"], "metadata": {}}
    return _as_json(content | {"labels": labels, "data": samples})


def _as_xml(root: ElementTree.Element) -> str:
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    if found := re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", text):
        raise InputError(f"XML cannot hold the character {found[0]!r} of a path or a label; convert to another format")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _add(parent: ElementTree.Element, tag: str, text: str = "", **attributes: object) -> ElementTree.Element:
    child = ElementTree.SubElement(parent, tag, {name: str(value) for name, value in attributes.items()})
    child.text = text or None
    return child


def _write_elan(entries: Sequence[ListEntry]) -> str:
    """Writes a file of EAF 3.0; segments of one tier must not overlap, so those that do get further tiers."""
    path = entries[0].path
    root = ElementTree.Element("ANNOTATION_DOCUMENT", {"AUTHOR": "", "FORMAT": "3.0", "VERSION": "3.0"})
    root.set("DATE", datetime.now(timezone.utc).isoformat(timespec="seconds"))
    root.set("xmlns:xsi", _SCHEMA)
    root.set("xsi:noNamespaceSchemaLocation", "http://www.mpi.nl/tools/elan/EAFv3.0.xsd")
    header = _add(root, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    mime = mimetypes.guess_type(path)[0] or "video/mp4"
    _add(header, "MEDIA_DESCRIPTOR", MEDIA_URL=path, MIME_TYPE=mime, RELATIVE_MEDIA_URL=f"./{path}")
    order = _add(root, "TIME_ORDER")
    tiers: list[tuple[float, ElementTree.Element]] = []  # with the end of their last annotation
    for number, entry in enumerate(sorted(entries, key=_times), start=1):
        start, end = _times(entry)
        slots = [f"ts{2 * number - 1}", f"ts{2 * number}"]
        first = round(start * 1000)
        for slot, time in zip(slots, (first, max(first + 1, round(end * 1000))), strict=True):
            _add(order, "TIME_SLOT", TIME_SLOT_ID=slot, TIME_VALUE=time)
        place = next((i for i, (last, _) in enumerate(tiers) if last <= start), len(tiers))
        if place == len(tiers):
            name = "action" if not tiers else f"action-{place + 1}"
            tiers.append((0, _add(root, "TIER", TIER_ID=name, LINGUISTIC_TYPE_REF="default-lt")))
        tiers[place] = end, tiers[place][1]
        references = {"TIME_SLOT_REF1": slots[0], "TIME_SLOT_REF2": slots[1]}
        annotation = _add(_add(tiers[place][1], "ANNOTATION"), "ALIGNABLE_ANNOTATION", ANNOTATION_ID=f"a{number}")
        annotation.attrib |= references
        _add(annotation, "ANNOTATION_VALUE", entry.label)
    order[:] = sorted(order, key=lambda slot: int(slot.get("TIME_VALUE", "")))
    _add(root, "LINGUISTIC_TYPE", LINGUISTIC_TYPE_ID="default-lt", TIME_ALIGNABLE="true", GRAPHIC_REFERENCES="false")
    return _as_xml(root)


def _write_cvat(entries: Sequence[ListEntry]) -> str:
    """Writes segments with a box in pixels as tracks that hold still, and the others as tags of their frames."""
    root = ElementTree.Element("annotations")
    _add(root, "version", "1.1")
    meta = _add(root, "meta")
    labels = _add(_add(meta, "task"), "labels")
    for label in sorted({entry.label for entry in entries}):
        _add(_add(labels, "label"), "name", label)
    _add(meta, "source", entries[0].path)
    tags: dict[int, list[str]] = defaultdict(list)
    for entry in entries:
        start, end = map(int, _times(entry))
        region = entry.part.region
        if region is None and end - start > _MOST_TAGS:
            raise InputError(f"{entry.where}{entry.part}: CVAT needs a tag for each of the {end - start:,} frames")
        if region is None:
            for frame in range(start, end):
                tags[frame].append(entry.label)
            continue
        if not region.in_pixels:
            raise InputError(f"{entry.where}{entry.part}: CVAT has boxes in pixels, and this one is in fractions")
        track = _add(root, "track", id=len(root.findall("track")), label=entry.label, source="manual")
        for frame, outside in ((start, 0), (end, 1)):
            box = {name: f"{side:.2f}" for name, side in zip(("xtl", "ytl", "xbr", "ybr"), region[:4], strict=True)}
            _add(track, "box", frame=frame, keyframe=1, outside=outside, occluded=0, **box, z_order=0)
    for frame in sorted(tags):
        image = _add(root, "image", id=frame, name=f"frame_{frame:06d}")
        for label, _ in Counter(tags[frame]).items():
            _add(image, "tag", label=label, source="manual")
    return _as_xml(root)


WRITERS = {
    "csv": Writer(_write_csv, "a list", frozenset({"whole", "segment", "box", "open", "group", "subset"}), unit="both"),
    "label-studio": Writer(
        _write_label_studio, "Label Studio", frozenset({"whole", "segment", "group", "subset"}), unit="frames"
    ),
    "activitynet": Writer(_write_activitynet, "ActivityNet", frozenset({"segment", "subset"})),
    "via": Writer(_write_via, "VIA", frozenset({"whole", "segment"})),
    "osl": Writer(_write_osl, "OSL", frozenset({"whole"})),
    "cvat": Writer(_write_cvat, "CVAT", frozenset({"segment", "box"}), unit="frames", has_one_video=True),
    "elan": Writer(_write_elan, "ELAN", frozenset({"segment"}), has_one_video=True),
}
