"""What a report says in tables of a name and a value: configuration, protocol, machines and versions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple

from vswin.compose import compose_config
from vswin.config import flatten
from vswin.errors import InputError
from vswin.runs.files import Run
from vswin.runs.settings import format_value, is_setting
from vswin.schema import TrainConfig
from vswin.wording import count_of, printable

_MACHINE = {"cpu": "processor", "gpus": "GPUs", "system": "system"}
_VERSIONS = {
    **{"vswin": "vswin", "python": "Python", "tensorflow": "TensorFlow", "tf_keras": "tf_keras"},
    **{"numpy": "NumPy", "opencv": "OpenCV"},
}


class Fact(NamedTuple):
    """Hold a row of a table."""

    name: str
    value: str


class Change(NamedTuple):
    """Hold a setting that is not the default one."""

    key: str
    default: str
    value: str


def list_changes(config: Mapping[str, Any]) -> list[Change] | None:
    """Lists what was configured otherwise than `vswin train model=... dataset=...` does.

    Args:
        config: key -> value, as saved by a run.

    Returns:
        The changes; None where the model or the data set is not one of this version, so that nothing can be said.
    """
    named = [f"{group}={config.get(f'{group}.name')}" for group in ("model", "dataset")]
    try:
        defaults = dict(flatten(dataclasses.asdict(compose_config("train", named, TrainConfig))))
    except InputError:
        return None
    return [
        Change(key, _show(defaults[key]) if key in defaults else "", _show(value))
        for key, value in config.items()
        if is_setting(key) and (key not in defaults or format_value(value) != format_value(defaults[key]))
    ]


def list_settings(values: Mapping[str, Any]) -> list[Fact]:
    """Lists all keys of a configuration or a protocol."""
    return [Fact(printable(key), _show(value)) for key, value in flatten(dict(values))]


def describe_test(run: Run) -> list[Fact]:
    """Says how a run was tested, in the words of people; what is not known is left out."""
    protocol, test_set = run.protocol, run.test_set
    weights = protocol.get("weights")
    weights = weights if isinstance(weights, dict) else {}
    stride = f"with stride {protocol.get('frame_stride')}" if protocol.get("frame_stride") != 1 else "in a row"
    sampling = stride if protocol.get("sampling") == "dense" else "one from each segment"
    average = {"prob": "probabilities averaged", "score": "logits averaged"}.get(str(protocol.get("average")), "")
    views = _fill("{num_clips} x {num_crops} (clips x crops)", protocol)
    decoders = protocol.get("decoder")
    rows = {
        "weights": weights.get("init_from"),
        "their file": weights.get("file"),
        "SHA-256 of the file": weights.get("sha256"),
        "data set": _join([test_set.get("name"), _fill("split {split}", test_set)]),
        "its folder": test_set.get("root"),
        "videos": _join([_fill("{num_videos:,}", test_set), _fill("{num_missing:,} of the list missing", test_set)]),
        "hash of the list": test_set.get("list_hash"),
        "views of a video": _join([views, average]),
        "frames of a view": f"{protocol['num_frames']} {sampling}" if "num_frames" in protocol else None,
        "pixels": _fill("short side {resize}, {crop} x {crop} cut out", protocol),
        "precision": protocol.get("precision"),
        "decoders": _count_decoders(decoders) if isinstance(decoders, dict) else None,
        "date": _show_time(protocol.get("date")),
    }
    return [Fact(name, _show(value)) for name, value in rows.items() if value not in (None, "")]


def describe_session(session: Mapping[str, Any]) -> list[Fact]:
    """Says what a session ran on; what is not known is left out."""
    git = session.get("git")
    rows = {
        "started": _show_time(session.get("date")),
        "command": session.get("command"),
        "code": _describe_code(git) if isinstance(git, dict) else None,
        "versions": _join(f"{name} {session[key]}" for key, name in _VERSIONS.items() if session.get(key)),
        **{name: session.get(key) for key, name in _MACHINE.items()},
        "cores and memory": _join(
            [_fill("{cores} cores, {threads} threads", session), _fill("{memory_gb} GB", session)]
        ),
    }
    if isinstance(rows["GPUs"], list):
        rows["GPUs"] = ", ".join(map(str, rows["GPUs"])) or "none"
    return [Fact(name, _show(value)) for name, value in rows.items() if value not in (None, "")]


def _show_time(value: Any) -> str:
    """Writes a time as people do, as it is if it is none."""
    try:
        return f"{datetime.fromisoformat(value).astimezone(timezone.utc):%Y-%m-%d %H:%M} UTC"
    except (TypeError, ValueError):
        return "" if value is None else str(value)


def _describe_code(git: Mapping[str, Any]) -> str:
    changes = ", with changes that are not committed" if git.get("is_changed") else ""
    return f"git revision {git.get('revision')}{changes}"


def _count_decoders(decoders: Mapping[str, Any]) -> str:
    used = {name: entry for name, entry in decoders.items() if isinstance(entry, dict) and entry.get("videos")}
    return ", ".join(
        f"{name} {entry.get('version')}: {count_of(entry['videos'], 'video')}" for name, entry in used.items()
    )


def _fill(pattern: str, values: Mapping[str, Any]) -> str:
    """Fills values into a text; empty where one is not there, or is nothing."""
    try:
        return "" if any(not values[key] for key in _keys(pattern)) else pattern.format_map(values)
    except (LookupError, ValueError, TypeError):
        return ""


def _keys(pattern: str) -> list[str]:
    return [part.partition("}")[0].partition(":")[0] for part in pattern.split("{")[1:]]


def _join(parts: Iterable[Any]) -> str:
    return ", ".join(str(part) for part in parts if part)


def _show(value: Any) -> str:
    return printable(format_value(value))
