"""Read what annotation tools export, recognised by its content: labels, times and boxes, but no ids or people's names.

Label Studio (JSON and JSON-MIN), CVAT for video 1.1, VIA 3, ELAN, ActivityNet and OSL. Every reader yields entries; the
annotations that it cannot use are counted in `unused` by their reason.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree

from vswin.data.annotations import is_json, parse_json
from vswin.data.folder import is_video
from vswin.data.lists import SUBSETS, ListEntry, read_list, read_text
from vswin.data.samples import WHOLE, Part, Region, Segment
from vswin.errors import InputError

Entries = Iterator[ListEntry]
# Names that an ELAN tier, a VIA attribute or an OSL head of classes may have; where none has one, the first is read.
_LABELS = re.compile(
    r"((action|label|class|event|temporal-segment)(e?s)?|(activit|categor)(y|ies))([ _-]?\d+)?", re.IGNORECASE
)
# An OSL event is a point in time; it becomes a segment that begins and ends so many seconds before and after it.
_AROUND_EVENT = 1.0
TOOLS = "Label Studio, VIA 3, ActivityNet and OSL as JSON, CVAT for video 1.1 and ELAN as XML"


def read_labels(path: Path, base: str, notes: list[str], several: bool = False) -> list[ListEntry]:
    """Reads the export of an annotation tool, or a list as `read_list` does, whose arguments these are.

    Every annotation becomes an entry without a line number, with its segment in seconds, or in frames where the tool
    states no rate. `notes` gets a sentence that counts what is not used. An `InputError` names annotations whose times
    or boxes are impossible, and refuses files of other forms and XML with entities.
    """
    text = read_text(path)
    unused: Counter[str] = Counter()
    if is_json(text):
        content = parse_json(path, text)
        read = _find_json_reader(content)
        if read is None:
            raise InputError(f"{path} is JSON, but in no form that vswin reads: {TOOLS}")
    elif re.match(r"\s*<[?!A-Za-z]", text):
        content = _parse_xml(path, text)
        read = {"annotations": _read_cvat, "ANNOTATION_DOCUMENT": _read_elan}.get(content.tag)
        if read is None:
            raise InputError(
                f"{path} is XML with the root <{content.tag:.80}>, but in no form that vswin reads: {TOOLS}"
            )
    else:
        return read_list(path, base, notes, several)
    entries = list(read(str(path), content, unused))
    reasons = ", ".join(f"{what}: {count:,}" for what, count in unused.items() if count)
    if not entries:
        raise InputError(f"{path} holds no labels of videos{f' ({reasons})' if reasons else ''}")
    if reasons:
        notes.append(f"not used of {path}: {reasons}")
    if not several and (count := sum(";" in entry.label for entry in entries)):
        notes.append(
            f"annotations of {path} with several labels: {count:,}; a combination, `a;b`, counts as one class (with "
            "dataset.task=multi_label each counts)"
        )
    return entries


def _find_json_reader(content: Any) -> Callable[[str, Any, Counter[str]], Entries] | None:
    fields = _dict(content)
    if isinstance(fields.get("database"), dict):
        return _read_activitynet
    if {"file", "metadata", "attribute"} <= fields.keys():
        return _read_via
    if isinstance(fields.get("data"), list):
        return _read_osl
    tasks = content if isinstance(content, list) else [content]
    is_task = any(_dict(task).keys() & {"annotations", "completions", "annotation_id", "result"} for task in tasks)
    return _read_label_studio if is_task else None


def _parse_xml(path: Path, text: str) -> ElementTree.Element:
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise InputError(f"{path} has a DOCTYPE or entities, which annotation tools do not write; remove them")
    try:
        # S314: entities are refused above.
        return ElementTree.fromstring(text.lstrip())  # noqa: S314
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise InputError(f"The list {path} cannot be read: it is no whole XML file ({error})") from error


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _join(labels: Any) -> str:
    """Writes the labels of one annotation as lists write several: separated by semicolons."""
    labels = labels if isinstance(labels, list) else [labels]
    return ";".join(text.strip() for text in labels if isinstance(text, str) and text.strip())


def _number(where: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{where}: expected a number, found {str(value)!r:.80}; correct it, or export the file again")
    return number


def _segment(where: str, start: Any, end: Any, in_frames: bool = False) -> Segment:
    segment = Segment(_number(where, start), _number(where, end), in_frames)
    if not 0 <= segment.start < segment.end:
        raise InputError(
            f"{where}: the {'frames' if in_frames else 'times'} {segment.start:.10g} to {segment.end:.10g}; a segment "
            "starts at 0 or later and ends after its start; correct it in the tool and export the file again"
        )
    return segment


def _path_of(address: str) -> str:
    """Reduces the address of a video to the path below the folder of the videos, or to the file name."""
    path = address.strip().replace("\\", "/")
    try:
        url = urlsplit(path)
        local = parse_qs(url.query).get("d") if "local-files/" in path else None
    except ValueError:
        return path.rpartition("/")[2]
    if local:
        path = local[0].lstrip("/")
    elif re.match(r"file:|[A-Za-z]:/", path):
        path = (unquote(url.path) if url.scheme == "file" else path).rpartition("/")[2]
    elif "://" in path:
        path = unquote(url.path).lstrip("/")
    # Label Studio adds eight digits to the names of uploaded files.
    path = re.sub(r"^(?:.*/)?data/upload/(?:\d+/)?(?:[0-9a-f]{8}-)?(?=[^/]+$)", "", path)
    return re.sub(r"^(\.{1,2}/)+", "", path)


def _read_label_studio(source: str, tasks: Any, unused: Counter[str]) -> Entries:
    """Reads tasks with results; frames count from 1, and the last one belongs to its range."""
    for number, task in enumerate(tasks if isinstance(tasks, list) else [tasks], start=1):
        task = _dict(task)
        is_small = not task.keys() & {"annotations", "completions", "result"}  # JSON-MIN, of one annotation each
        data = task if is_small else _dict(task.get("data") or _dict(task.get("task")).get("data"))
        texts = [
            value for key, value in data.items() if isinstance(value, str) and (key == "video" or _is_media(value))
        ]
        if not texts:
            unused["tasks without a video"] += 1
            continue
        rounds = [task] if is_small or "result" in task else _list(task.get("annotations", task.get("completions")))
        finished = [some for some in map(_dict, rounds) if not (some.get("was_cancelled") or some.get("skipped"))]
        unused["skipped annotations"] += len(rounds) - len(finished)
        finished.sort(key=lambda some: not some.get("ground_truth"))
        unused["second annotations of a task"] += max(0, len(finished) - 1)
        unused["tasks without annotations"] += not finished
        path, where = _path_of(texts[0]), f"{source}, task {number}"
        subset, group = (data.get(key) if isinstance(data.get(key), str) else "" for key in ("split", "group"))
        base = ListEntry(source, 0, path, "", group=group or "", subset=SUBSETS.get((subset or "").lower(), ""))
        for some in finished[:1]:
            results = _small_results(some) if is_small else [_dict(result) for result in _list(some.get("result"))]
            unused["tasks without annotations"] += not results
            # One result may state the rate of all, which belong to one video.
            parts = [
                part for result in results for part in (result, _dict(result.get("value")), _dict(result.get("meta")))
            ]
            rate = _rate_of(where, data, *parts)
            for result in results:
                value = _dict(result.get("value"))
                label = _join(value.get("timelinelabels") or value.get("choices") or value.get("taxonomy"))
                ranges = _list(value.get("ranges"))
                if not label or ("timelinelabels" in value) != bool(ranges):
                    unused["results that are no labels of times or choices"] += 1
                elif not ranges:
                    yield base._replace(label=label)
                for span in map(_dict, ranges if label else ()):
                    first = _number(where, span.get("start"))
                    segment = _segment(where, first - 1 if first >= 1 else first, span.get("end"), in_frames=True)
                    if rate:
                        segment = Segment(segment.start / rate, segment.end / rate)
                    yield base._replace(label=label, part=Part(segment))


def _is_media(text: str) -> bool:
    return is_video(_path_of(text).rpartition("/")[2])


def _small_results(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Finds the results of a task in JSON-MIN, which drops their type: timelines are lists, one choice is a text."""
    results = []
    for key, value in task.items():
        if isinstance(value, list):
            results += [{"value": item} for item in map(_dict, value) if item]
        elif isinstance(value, dict) and "choices" in value:
            results.append({"value": value})
        elif isinstance(value, str) and re.fullmatch(_LABELS.pattern + r"|choices?", key, re.IGNORECASE):
            results.append({"value": {"choices": [value]}})
    return results


def _rate_of(where: str, *parts: Mapping[str, Any]) -> float:
    """Finds the frames per second in the parts of an annotation, or 0.0 if none states them."""
    known: dict[str, Any] = {}
    for part in reversed(parts):
        known |= part
    value = next((known[key] for key in ("frameRate", "framerate", "frame_rate", "fps") if known.get(key)), None)
    duration = known.get("duration") or known.get("original_length")
    if value is None and known.get("framesCount") and duration:
        value = _number(where, known["framesCount"]) / max(_number(where, duration), 1e-9)
    rate = 0.0 if value is None else _number(where, value)
    if value is not None and not 0.01 <= rate <= 10_000:
        raise InputError(f"{where}: {rate:g} frames per second; a rate is between 0.01 and 10,000")
    return rate


def _read_activitynet(source: str, content: Any, unused: Counter[str]) -> Entries:
    for name, video in content["database"].items():
        where = f"{source}, video {name:.80}"
        annotations = _list(_dict(video).get("annotations"))
        unused["videos without annotations"] += not annotations
        subset = SUBSETS.get(str(_dict(video).get("subset", "")).strip().lower(), "")
        for annotation in map(_dict, annotations):
            label, times = _join(annotation.get("label")), annotation.get("segment")
            if not label:
                unused["annotations without a label"] += 1
                continue
            if times is not None and len(_list(times)) != 2:
                raise InputError(f"{where}: the segment {str(times)!r:.80}; expected [start, end] in seconds")
            part = WHOLE if times is None else Part(_segment(where, *times))
            yield ListEntry(source, 0, _path_of(name), label, part=part, subset=subset)


def _read_via(source: str, content: Any, unused: Counter[str]) -> Entries:
    """Reads temporal segments, which have two times `z` and no shape `xy`, and the attributes of whole files."""
    files, views, attributes = (_dict(content.get(key)) for key in ("file", "view", "attribute"))
    attributes = {key: _dict(attribute) for key, attribute in attributes.items()}
    for number, item in enumerate(map(_dict, _dict(content["metadata"]).values()), start=1):
        where, times, values = f"{source}, metadata {number}", _list(item.get("z")), _dict(item.get("av"))
        if _list(item.get("xy")) or len(times) == 1:
            unused["shapes and points in time"] += 1
            continue
        shown = [str(fid) for fid in _list(_dict(views.get(str(item.get("vid")))).get("fid_list"))]
        file = _dict(files.get(shown[0] if shown else str(item.get("vid"))))
        # Browsers only know the names of files, which are in `fname`; other files have an address in `src`.
        address = file.get("src") if file.get("loc") in (2, 3, "2", "3") else file.get("fname")
        if not isinstance(address or file.get("fname"), str):
            raise InputError(f"{where}: no video of that view; save the project in VIA again")
        found = {}
        for key, value in values.items():
            options = _dict(attributes.get(key, {}).get("options"))
            chosen = str(value).split(",") if attributes.get(key, {}).get("type") == 2 else [value]
            found[key] = _join([options.get(str(some), some) for some in chosen])
        found = {key: label for key, label in found.items() if label}
        named = [key for key in found if _LABELS.fullmatch(str(attributes.get(key, {}).get("aname")))]
        unused["further attributes"] += max(0, len(found) - 1)
        unused["annotations without a label"] += not found
        if found:
            if times and len(times) != 2:
                raise InputError(f"{where}: {len(times)} times; a temporal segment has a start and an end")
            part = Part(_segment(where, *times)) if times else WHOLE
            yield ListEntry(
                source, 0, _path_of(str(address or file.get("fname"))), found[[*named, *found][0]], part=part
            )


def _read_osl(source: str, content: Any, unused: Counter[str]) -> Entries:
    """Reads the labels of samples and their events; the videos of a sample, its views, form a group."""
    subset = SUBSETS.get(str(_dict(content.get("metadata")).get("split", "")).lower(), "")
    heads = list(_dict(content.get("labels")))
    head = next((name for name in heads if _LABELS.fullmatch(name)), heads[0] if heads else "")
    for number, sample in enumerate(map(_dict, content["data"]), start=1):
        where = f"{source}, sample {number}"
        inputs = [_dict(some) for some in _list(sample.get("inputs"))]
        videos = [
            _path_of(some["path"]) for some in inputs if isinstance(some.get("path"), str) and _is_osl_video(some)
        ]
        unused["inputs that are no videos"] += len(inputs) - len(videos)
        labels = _dict(sample.get("labels"))
        own = head if head or not labels else next(iter(labels))
        unused["labels of other heads"] += len(labels.keys() - {own})
        label = _join(_dict(labels.get(own)).get("label") or _dict(labels.get(own)).get("labels"))
        parts = [(label, WHOLE)] if label else []
        for event in map(_dict, _list(sample.get("events"))):
            label = _join(event.get("label"))
            if not label or event.get("head", own) not in (own, head, ""):
                unused["events of other heads or without a label"] += 1
                continue
            middle = _number(f"{where}, position_ms", event.get("position_ms")) / 1000
            segment = _segment(
                where, max(0.0, middle - _AROUND_EVENT) if middle >= 0 else middle, middle + _AROUND_EVENT
            )
            parts.append((label, Part(segment)))
        unused["samples without labels"] += not parts
        group = f"{Path(source).name}, sample {number}" if len(videos) > 1 else ""
        for video in videos:
            for label, part in parts:
                yield ListEntry(source, 0, video, label, part=part, group=group, subset=subset)


def _is_osl_video(item: Mapping[str, Any]) -> bool:
    return item["type"] == "video" if "type" in item else _is_media(item["path"])


def _read_elan(source: str, root: ElementTree.Element, unused: Counter[str]) -> Entries:
    """Reads the aligned annotations of the tiers that are named like labels, or else of the first that has any."""
    header = root.find("HEADER")
    units = "milliseconds" if header is None else header.get("TIME_UNITS", "milliseconds")
    if units != "milliseconds":
        raise InputError(f"{source}: times in {units!r:.80}; save the file with a current ELAN, in milliseconds")
    media = list(root.iter("MEDIA_DESCRIPTOR"))
    media.sort(key=lambda some: not some.get("MIME_TYPE", "").startswith("video"))
    address = (media[0].get("RELATIVE_MEDIA_URL") or media[0].get("MEDIA_URL", "")) if media else ""
    if not address:
        raise InputError(f"{source}: no linked video (MEDIA_DESCRIPTOR); link it in ELAN and save the file again")
    unused["further media"] += len(media) - 1
    origin = _number(f"{source}, TIME_ORIGIN", media[0].get("TIME_ORIGIN", 0))
    slots = {slot.get("TIME_SLOT_ID"): slot.get("TIME_VALUE") for slot in root.iter("TIME_SLOT")}
    tiers = [(tier.get("TIER_ID", ""), list(tier.iter("ALIGNABLE_ANNOTATION"))) for tier in root.iter("TIER")]
    tiers = [(name, annotations) for name, annotations in tiers if annotations]
    named = [(name, annotations) for name, annotations in tiers if _LABELS.fullmatch(name)] or tiers[:1]
    unused["annotations of other tiers"] += sum(len(some) for _, some in tiers) - sum(len(some) for _, some in named)
    unused["annotations that have no times of their own"] += len(list(root.iter("REF_ANNOTATION")))
    for number, annotation in enumerate((item for _, some in named for item in some), start=1):
        where = f"{source}, annotation {number}"
        label = _join(annotation.findtext("ANNOTATION_VALUE") or "")
        times = [slots.get(annotation.get(f"TIME_SLOT_REF{end}")) for end in (1, 2)]
        if not label or None in times:
            unused["annotations without a label" if not label else "annotations without times"] += 1
            continue
        start, end = ((_number(where, time) + origin) / 1000 for time in times)
        yield ListEntry(source, 0, _path_of(address), label, part=Part(_segment(where, start, end)))


def _read_cvat(source: str, root: ElementTree.Element, unused: Counter[str]) -> Entries:
    """Reads the boxes of tracks, up to where a box is `outside`, and tags of consecutive frames, as segments."""
    tasks = [*root.iterfind("meta//task"), *root.iterfind("meta/job")]
    of_task = {task.findtext("id", ""): task for task in tasks}
    address = root.findtext("meta/source") or root.findtext("meta//source") or ""

    def describe(item: ElementTree.Element) -> tuple[ListEntry, int]:
        """Finds the video of a track or tag, with its subset, and the step between its frames."""
        task = of_task.get(item.get("task_id", ""), tasks[0] if tasks else root)
        name, subset = task.findtext("source") or address, (task.findtext("subset") or "").lower()
        step = re.search(r"step\s*=\s*(\d{1,9})", task.findtext("frame_filter") or "")
        if not name:
            raise InputError(f"{source}: no name of the video (meta/source); export it as `CVAT for video 1.1`")
        return ListEntry(source, 0, _path_of(name), "", subset=SUBSETS.get(subset, "")), int(step[1]) if step else 1

    for number, track in enumerate(root.iterfind("track"), start=1):
        where, label = f"{source}, track {number}", (track.get("label") or "").strip()
        boxes = sorted(track.iterfind("box"), key=lambda box: _number(where, box.get("frame")))
        if not boxes or not label:
            unused["tracks that have no boxes or no label"] += 1
            continue
        entry, step = describe(track)
        run: list[ElementTree.Element] = []
        for box in [*boxes, None]:
            if box is not None and box.get("outside") != "1":
                run.append(box)
            elif run:
                end = _number(where, (run[-1] if box is None else box).get("frame")) + (step if box is None else 0)
                segment = _segment(where, run[0].get("frame"), end, in_frames=True)
                yield entry._replace(label=label, part=Part(segment, _hull(where, run)))
                run = []
    frames: dict[tuple[str, ListEntry, int], set[float]] = defaultdict(set)
    tags = [(tag, tag) for tag in root.iterfind("tag")]
    tags += [(image, tag) for image in root.iterfind("image") for tag in image.iterfind("tag")]
    for number, (place, tag) in enumerate(tags, start=1):
        frame = _number(f"{source}, tag {number}", place.get("frame", place.get("id")))
        entry, step = describe(place)
        frames[(tag.get("label") or "").strip(), entry, step].add(frame)
    unused["shapes of single frames"] += sum(len(image) - len(image.findall("tag")) for image in root.iterfind("image"))
    for (label, entry, step), numbers in frames.items():
        starts = sorted(frame for frame in numbers if frame - step not in numbers)
        ends = sorted(frame + step for frame in numbers if frame + step not in numbers)
        for start, end in zip(starts, ends, strict=True):
            yield entry._replace(label=label, part=Part(_segment(f"{source}, tags", start, end, in_frames=True)))


def _hull(where: str, boxes: list[ElementTree.Element]) -> Region:
    """Finds the smallest box that holds all boxes of a track."""
    sides = [[_number(where, box.get(side)) for box in boxes] for side in ("xtl", "ytl", "xbr", "ybr")]
    region = Region(max(0.0, min(sides[0])), max(0.0, min(sides[1])), max(sides[2]), max(sides[3]))
    if region.left >= region.right or region.top >= region.bottom:
        raise InputError(
            f"{where}: the box {', '.join(f'{side:g}' for side in region[:4])}; expected left < right and top < bottom"
        )
    return region
