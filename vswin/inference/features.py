"""Write the features that a model computes for videos, as `.npz` or Parquet files: `vswin extract`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from vswin import __version__
from vswin.atomic import check_outputs, replacing
from vswin.console import count_of, printable
from vswin.data.bad_videos import BadVideos
from vswin.data.samples import split_name
from vswin.data.views import protocol_frames
from vswin.errors import DecodeError, InputError
from vswin.evaluation.views import check_finite, show_progress
from vswin.inference.inputs import Input, find_videos
from vswin.inference.model import LoadedModel, find_protocol, open_model
from vswin.runtime import logger, start_log

FORMATS = (".npz", ".parquet")


def run_extract(
    arguments: Sequence[str],
    weights: str,
    output: Path,
    overrides: Sequence[str] = (),
    level: str = "video",
    is_overwriting: bool = False,
) -> None:
    """Computes the features of videos and writes them to one file, whole or not at all.

    `.npz` has the arrays `features` (float32 [N, C]), `path`, `start_sec` and `label`, and the text `about`, metadata
    as JSON; `np.load(path)` reads it without pickle. `.parquet` has columns of the same names: `features` holds lists
    of C numbers, a missing `label` is null, and the metadata stands in the schema under `vswin`.

    `arguments` are files, folders and patterns, see `find_videos`. `weights` name the model, with or without a head,
    and `overrides` change the views and where the model runs, see `find_protocol`. With the `level` "video" there is a
    row per video, the average over its views; with "clip" a row per clip, the average over its crops.

    Raises:
        InputError: if there are no such videos or model, or the output cannot be written.
        SystemExit: with code 1, if videos could not be decoded; the features of all others are written.
    """
    start_log(None)
    if output.suffix not in FORMATS:
        raise InputError(f"--output {output}: the ending says the format: {' or '.join(FORMATS)}")
    if output.suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise InputError(
                "Parquet needs pyarrow, which is not installed: pip install 'vswin[parquet]'; .npz needs nothing"
            ) from None
    check_outputs([output], is_overwriting)
    inputs = find_videos(arguments)
    protocol = find_protocol(weights, overrides)
    loaded = open_model(weights, protocol, needs_head=False)
    logger.info(f"{weights}: {protocol.origin}")

    bad = BadVideos()
    rows = list(_compute_rows(loaded, inputs, level, bad))
    for path, reason, _ in bad.rows():
        logger.info(f"{printable(path)}: passed over, {printable(reason)}")
    if not rows:
        raise InputError("no video could be decoded, so there are no features to write")

    entries, starts, values = zip(*rows, strict=True)
    columns: dict[str, Any] = {
        "features": np.stack(values),  # [N, C]
        # File names may hold bytes that are not UTF-8.
        "path": np.array([entry.path.encode(errors="backslashreplace").decode() for entry in entries]),
        "start_sec": np.array(starts),
        "label": np.array([entry.label for entry in entries]),
    }
    clip = {key: value for key, value in vars(protocol.config.clip).items() if key != "views_per_step"}
    metadata = json.dumps({"model": weights, "level": level, "protocol": clip, "vswin": __version__})
    with replacing(output) as partial:
        if output.suffix == ".parquet":
            _write_parquet(partial, columns, metadata)
        else:
            with partial.open("wb") as file:
                np.savez(file, **columns, about=np.array(metadata))
    count, size = columns["features"].shape
    logger.info(f"wrote {output}: {count_of(count, 'row')} of {size} features, a row per {level}")
    logger.info(loaded.describe())
    if len(bad):
        logger.info(f"{len(bad)} of {len(inputs)} videos could not be decoded and were passed over")
        raise SystemExit(1)


def _compute_rows(
    loaded: LoadedModel, inputs: Sequence[Input], level: str, bad: BadVideos
) -> Iterator[tuple[Input, float, np.ndarray]]:
    """Yields for each video or clip its video, its start in seconds, and its features, float32 [C]."""
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
                    yield entry, 0.0, views.mean(axis=0)
                    continue
                # View v is crop v // num_clips of clip v % num_clips.
                by_clip = views.reshape(clip.num_crops, clip.num_clips, -1).mean(axis=0)  # [num_clips, C]
                for start_sec, values in zip(_find_starts(loaded, entry.path), by_clip, strict=True):
                    yield entry, start_sec, values


def _find_starts(loaded: LoadedModel, path: str) -> list[float]:
    """Gives the start of each clip in seconds; NaN where the file has no timestamps."""
    config = loaded.protocol.config
    try:
        file, part = split_name(path)
        with loaded.store.open(file, config.dataset.decoder, config.dataset.clip_timeout_sec, part) as reader:
            starts = protocol_frames(reader.num_video_frames, config.clip)[:, 0]  # [num_clips]
            return reader.read_times()[starts].tolist()
    except DecodeError as error:
        raise InputError(f"{path} has changed while it was read: {error.reason}") from None


def _write_parquet(path: Path, columns: Mapping[str, np.ndarray], metadata: str) -> None:
    import pyarrow
    import pyarrow.parquet

    features = columns["features"]
    table = pyarrow.table(
        {
            "path": pyarrow.array(columns["path"]),
            "start_sec": pyarrow.array(columns["start_sec"]),
            "label": pyarrow.array([label or None for label in columns["label"].tolist()], pyarrow.string()),
            "features": pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(features.ravel()), features.shape[1]),
        }
    )
    pyarrow.parquet.write_table(table.replace_schema_metadata({"vswin": metadata}), path)
