"""Find the protocol of a model: from the name given as `--model` to the configuration of an evaluation.

Predictions for a video therefore equal those of `vswin evaluate`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vswin.config.checks import AVERAGES, SAMPLINGS, SPACINGS
from vswin.config.compose import compose_evaluation
from vswin.config.schema import ClipConfig, EvaluateConfig
from vswin.console import count_of
from vswin.errors import InputError
from vswin.runs.files import read_metrics
from vswin.weights.checkpoint import open_checkpoint
from vswin.weights.files import is_saved_model, read_input_shape
from vswin.weights.published import find_published, find_weights

# Keys of an evaluation that may be set here; the other keys say where its videos are and where it writes.
_KEYS = ("average", "batch_size", "clip", "model", "runtime", "source", "weights")
_DATA_KEYS = ("dataset.decoder", "dataset.clip_timeout_sec", "dataset.isolate")
_CHOICES = {"sampling": SAMPLINGS, "spacing": SPACINGS, "average": AVERAGES}


class Protocol(NamedTuple):
    """How videos become predictions.

    Attributes:
        config: The configuration of an evaluation with these weights; `dataset` says how to decode.
        origin: Where the protocol comes from, as text.
        is_known: Whether the protocol comes from a run or the weights; otherwise it is assumed.
        has_size: Whether an override sets the size of the network.
    """

    config: EvaluateConfig
    origin: str
    is_known: bool
    has_size: bool

    def describe(self) -> str:
        """Describes in one line what is averaged."""
        clip = self.config.clip
        frames = count_of(clip.num_frames, "frame")
        if clip.sampling == "segments":
            frames += " from equal parts of the video"
        elif clip.frame_stride > 1:
            frames += f", one in {clip.frame_stride}"
        else:
            frames += " in a row"
        num_views = clip.num_clips * clip.num_crops
        views = "1 view each" if num_views == 1 else f"average of {num_views} views each"
        return (
            f"{views} ({count_of(clip.num_clips, 'clip')} x {count_of(clip.num_crops, 'crop')}; {frames}; "
            f"short side {clip.resize}, {clip.crop} x {clip.crop} px)"
        )


def find_protocol(weights: str, overrides: Sequence[str] = ()) -> Protocol:
    """Finds the protocol with which a model expects its videos.

    Args:
        weights: a run folder, one of its checkpoints, a published name, or weights in a file or a SavedModel. Files of
            vswin state their clips; for others, the clips of Kinetics are assumed.
        overrides: keys of an evaluation that change the protocol, e.g. `["clip.num_clips=1"]`.

    Raises:
        InputError: if there is no such model, or a key or value is wrong.
    """
    _check_keys(overrides)
    found = _find_source(weights)
    # A chosen clip configuration replaces all known keys of `clip`.
    is_chosen = any(override.startswith("clip=") for override in overrides)
    kept = [override for override in found.overrides if not (is_chosen and override.startswith("clip."))]
    config = compose_evaluation([*kept, *overrides], **found.brought)
    has_size = any(_group(override) == "model" for override in overrides)
    own = [override for override in overrides if _group(override) not in ("average", "clip")]
    origin = found.origin
    if len(own) < len(overrides):
        usual = _values(compose_evaluation([*found.overrides, *own], **found.brought))
        changes = [f"{key}={value}, not {usual[key]}" for key, value in _values(config).items() if value != usual[key]]
        origin += f"; changed: {'; '.join(changes)}" if changes else ""
    return Protocol(config, origin, found.is_known, has_size)


class _Source(NamedTuple):
    """What weights bring: arguments of `compose_evaluation`, overrides below those of the user, and their origin."""

    brought: dict[str, Any]
    overrides: list[str]
    origin: str
    is_known: bool = True


def _find_source(weights: str) -> _Source:
    run = _find_run(Path(weights))
    if run is not None:
        checkpoint = weights if Path(weights).is_file() else None
        tested = _read_tested(run / "metrics.json")
        origin = f"protocol of the {'evaluation' if tested else 'run'} in {run}"
        return _Source({"run": str(run), "init_from": checkpoint}, tested, origin)
    if not os.path.lexists(weights):
        return _Source({"init_from": weights}, [], f"protocol published for {_find_dataset(weights)}")
    # Videos without a data set count as a folder of videos.
    folder = ["dataset=folder"]
    clip = _read_clip(weights, open_checkpoint(weights).metadata.get("clip"))
    if clip:
        return _Source({"init_from": weights, "clip": clip}, folder, "protocol that comes with them")
    shape = read_input_shape(Path(weights)) if is_saved_model(Path(weights)) else None
    clip = {} if shape is None else {"num_frames": shape[2], "crop": shape[3]}
    origin = "protocol of Kinetics, as they do not say theirs (--set clip.KEY=VALUE changes it)"
    return _Source({"init_from": weights, "clip": clip}, folder, origin, is_known=False)


def _values(config: EvaluateConfig) -> dict[str, Any]:
    return {**vars(config.clip), "average": config.average}


def _read_tested(path: Path) -> list[str]:
    """Reads the protocol of an evaluation from its metrics, as overrides; empty if there is none."""
    protocol = (read_metrics(path) or {}).get("protocol")
    if protocol is None:
        return []
    keys = {*ClipConfig.__dataclass_fields__, "average"} - {"views_per_step"}
    tested = {key: protocol.get(key) for key in sorted(keys)}
    if not all(_is_sound(key, value) for key, value in tested.items()):
        raise InputError(f"{path}: what it says of the clips is damaged; evaluate the run again, or remove this file")
    return [f"{key if key == 'average' else f'clip.{key}'}={value}" for key, value in tested.items()]


def _find_run(path: Path) -> Path | None:
    """Gives the run folder that a path names, or the one of a checkpoint."""
    if (path / "config.yaml").is_file():
        return path
    run = path.absolute().parent.parent
    is_checkpoint = path.is_file() and path.absolute().parent.name == "checkpoints" and (run / "config.yaml").is_file()
    return run if is_checkpoint else None


def _find_dataset(name: str) -> str:
    try:
        weights = find_weights(name)
        return (find_published(name) if weights.is_image_model else weights).dataset
    except InputError as error:
        raise InputError(
            f"--model {name}: there is no such file or folder, and {error}. Give the folder of a run, a published name "
            "(`vswin models` lists them), a checkpoint (.h5, .pth, .safetensors) or a SavedModel"
        ) from None


def _check_keys(overrides: Sequence[str]) -> None:
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not equals:
            raise InputError(f"--set {override}: write KEY=VALUE, e.g. clip.num_clips=1")
        if key not in _DATA_KEYS and _group(override) not in _KEYS:
            raise InputError(
                f"--set {override}: {key} does not matter here; what does: {', '.join((*_KEYS, *_DATA_KEYS))} "
                "(`vswin evaluate --help` explains them)"
            )


def _group(override: str) -> str:
    return override.partition("=")[0].partition(".")[0]


def _read_clip(weights: str, clip: Any) -> dict[str, int | str]:
    """Checks the clip settings stored with weights, which may come from anybody, and takes those that a test needs."""
    if clip is None:
        return {}
    # Training resizes for random crops; the test has its own size.
    keys = [key for key in ClipConfig.__dataclass_fields__ if key != "resize"]
    if not isinstance(clip, Mapping) or not all(_is_sound(key, clip.get(key)) for key in keys):
        raise InputError(f"{weights}: what it says of its clips is damaged ({clip})")
    return {key: clip[key] for key in keys}


def _is_sound(key: str, value: Any) -> bool:
    if key in _CHOICES:
        return value in _CHOICES[key]
    return isinstance(value, int) and value >= 1
