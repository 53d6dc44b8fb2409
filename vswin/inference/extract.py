"""Write the features that a model computes for videos, as `.npz` or Parquet files: `vswin extract`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vswin import __version__
from vswin.atomic import check_outputs, replacing
from vswin.console import count_of, printable
from vswin.data.bad_videos import BadVideos
from vswin.data.views import protocol_frames
from vswin.errors import DecodeError, InputError
from vswin.evaluation.views import check_finite, show_progress
from vswin.inference.inputs import Input, find_videos
from vswin.inference.model import LoadedModel, open_model
from vswin.inference.protocol import find_protocol
from vswin.runtime import logger, start_log

FORMATS = (".npz", ".parquet")
LEVELS = ("video", "clip")


class Row(NamedTuple):
    """The features of a clip or a video, float32 [C], and its start in the video in seconds."""

    entry: Input
    start_sec: float
    values: np.ndarray


def run_extract(
    arguments: Sequence[str],
    weights: str,
    output: Path,
    overrides: Sequence[str] = (),
    level: str = "video",
    is_overwriting: bool = False,
) -> None:
    """Computes the features of videos and writes them.

    Args:
        arguments: files, folders and patterns, see `find_videos`.
        weights: the model, with or without a head; see `find_protocol`.
        output: `.npz` or `.parquet`, see `write_features`.
        overrides: change the views, and where the model runs.
        level: "video", one row per video, the average over its views; or "clip", one row per clip, the average over its
            crops.
        is_overwriting: whether `output` may replace an existing file.

    Raises:
        InputError: if there are no such videos or model, or the output cannot be written.
        SystemExit: with code 1, if videos could not be decoded; the features of all others are written.
    """
    start_log(None)
    if level not in LEVELS:
        raise InputError(f"--level {level}: one of {', '.join(LEVELS)}")
    check_format(output)
    check_outputs([output], is_overwriting)
    inputs = find_videos(arguments)
    protocol = find_protocol(weights, overrides)
    loaded = open_model(weights, protocol, needs_head=False)
    logger.info(f"{weights}: {protocol.origin}")
    bad = BadVideos()
    rows = list(_compute(loaded, inputs, level, bad))
    for path, reason, _ in bad.rows():
        logger.info(f"{printable(path)}: passed over, {printable(reason)}")
    if not rows:
        raise InputError("no video could be decoded, so there are no features to write")
    clip = {key: value for key, value in vars(protocol.config.clip).items() if key != "views_per_step"}
    about = {"model": weights, "level": level, "protocol": clip, "vswin": __version__}
    features = Features(
        features=np.stack([row.values for row in rows]),
        paths=[row.entry.path for row in rows],
        start_sec=np.array([row.start_sec for row in rows]),
        labels=[row.entry.label for row in rows],
        about=json.dumps(about),
    )
    write_features(output, features)
    count, size = features.features.shape
    logger.info(f"wrote {output}: {count_of(count, 'row')} of {size} features, a row per {level}")
    logger.info(loaded.describe())
    if len(bad):
        logger.info(f"{len(bad)} of {len(inputs)} videos could not be decoded and were passed over")
        raise SystemExit(1)


def _compute(loaded: LoadedModel, inputs: Sequence[Input], level: str, bad: BadVideos) -> Iterator[Row]:
    clip = loaded.protocol.config.clip
    batches = loaded.compute_features([entry.path for entry in inputs], bad)
    with closing(show_progress(batches, len(inputs), "extract")) as shown:
        for batch in shown:
            for index, label, views in zip(batch["indices"], batch["labels"], batch["features"], strict=True):
                if index < 0 or label < 0:
                    continue
                entry = inputs[index]
                check_finite(views[None], [entry.path])
                if level == "video":
                    yield Row(entry, 0.0, views.mean(axis=0))
                    continue
                # View v is crop v // num_clips of clip v % num_clips.
                of_clips = views.reshape(clip.num_crops, clip.num_clips, -1).mean(axis=0)  # [num_clips, C]
                for start_sec, values in zip(_find_starts(loaded, entry.path), of_clips, strict=True):
                    yield Row(entry, start_sec, values)


def _find_starts(loaded: LoadedModel, path: str) -> list[float]:
    """Gives the start of each clip in seconds; NaN where the file has no timestamps."""
    config = loaded.protocol.config
    try:
        with loaded.store.open(path, config.dataset.decoder, config.dataset.clip_timeout_sec) as reader:
            starts = protocol_frames(reader.num_video_frames, config.clip)[:, 0]  # [num_clips]
            return reader.read_times()[starts].tolist()
    except DecodeError as error:
        raise InputError(f"{path} has changed while it was read: {error.reason}") from None


class Features(NamedTuple):
    """The content of a feature file.

    Attributes:
        features: float32 [N, C].
        paths: N video files.
        start_sec: Start of each row in its video, in seconds, float64 [N].
        labels: N class names from the folder layout; empty where there is none.
        about: Metadata as JSON: how the features were computed.
    """

    features: np.ndarray
    paths: list[str]
    start_sec: np.ndarray
    labels: list[str]
    about: str


def check_format(path: Path) -> None:
    """Refuses an output with another ending than `FORMATS`, or Parquet without pyarrow, with an `InputError`."""
    if path.suffix not in FORMATS:
        raise InputError(f"--output {path}: the ending says the format: {' or '.join(FORMATS)}")
    if path.suffix == ".parquet":
        _import_pyarrow()


def write_features(path: Path, features: Features) -> None:
    """Writes features, the whole file or nothing.

    `.npz` has the arrays `features`, `path`, `start_sec` and `label`, and the text `about`; `np.load(path)` reads it
    without pickle. `.parquet` has columns of the same names: `features` holds lists of C numbers, a missing `label` is
    null, and `about` stands in the schema's metadata under `vswin`.
    """
    # File names may hold bytes that are not UTF-8.
    names = [name.encode(errors="backslashreplace").decode() for name in features.paths]
    with replacing(path) as partial:
        if path.suffix == ".parquet":
            _write_parquet(partial, features, names)
            return
        with partial.open("wb") as file:
            np.savez(
                file,
                features=features.features,
                path=np.array(names),
                start_sec=features.start_sec,
                label=np.array(features.labels),
                about=np.array(features.about),
            )


def _write_parquet(path: Path, features: Features, names: list[str]) -> None:
    import pyarrow
    import pyarrow.parquet

    values = pyarrow.array(features.features.ravel())  # [N*C]
    columns = {
        "path": pyarrow.array(names),
        "start_sec": pyarrow.array(features.start_sec),
        "label": pyarrow.array([label or None for label in features.labels], pyarrow.string()),
        "features": pyarrow.FixedSizeListArray.from_arrays(values, features.features.shape[1]),
    }
    table = pyarrow.table(columns).replace_schema_metadata({"vswin": features.about})
    pyarrow.parquet.write_table(table, path)


def _import_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise InputError(
            "Parquet needs pyarrow, which is not installed: pip install 'vswin[parquet]'; .npz needs nothing"
        ) from None
