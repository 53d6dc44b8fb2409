"""What determines the figures of an evaluation: videos, weights and views; does not import TensorFlow."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Container, Sequence
from datetime import datetime, timezone
from typing import Any

from vswin import __version__
from vswin.config.load import load_saved
from vswin.config.schema import DatasetConfig, EvaluateConfig
from vswin.data.catalog import Catalog, hash_videos, load_catalog
from vswin.data.samples import TEST, TRAIN, VAL, Sample
from vswin.weights.checkpoint import Checkpoint

WITH_SPLITS = ("ucf101", "hmdb51")
_NUM_NOTED = 32


def load_tested(config: EvaluateConfig) -> Catalog:
    """Finds the videos of an evaluation, `catalog.tested`.

    For a run whose data set is unchanged, these are its test videos, or else its validation videos. Any other folder or
    list is tested as a whole.
    """
    return load_catalog(config.dataset, is_given=bool(config.dataset.test_list) or not _is_of_run(config))


def _is_of_run(config: EvaluateConfig) -> bool:
    if config.run is None:
        return False
    own, saved = config.dataset, load_saved(config.run).dataset
    is_same = all(getattr(own, key, None) == getattr(saved, key, None) for key in ("name", "source", "split", "folds"))
    return is_same and all(
        os.path.realpath(getattr(own, key, None) or "") == os.path.realpath(getattr(saved, key, None) or "")
        for key in ("root", "train_list", "val_list")
    )


def describe_protocol(config: EvaluateConfig, checkpoint: Checkpoint | None, catalog: Catalog) -> dict[str, Any]:
    """Collects everything that determines the figures, as JSON values."""
    clip = dataclasses.asdict(config.clip)
    del clip["views_per_step"]
    weights: dict[str, object] = {"init_from": config.init_from}
    if checkpoint is not None:
        # The hash of a file, or of the files of a SavedModel folder in the order of their names.
        digest, path = hashlib.sha256(), checkpoint.path
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                digest.update(file.read_bytes())
        weights |= {"file": str(path), "dialect": checkpoint.dialect, "sha256": digest.hexdigest()}
    return {
        **clip,
        "average": config.average,
        "frame_rate": "as in the file",
        "precision": config.runtime.precision,
        "model": config.model.name,
        "weights": weights,
        "dataset": {
            "name": config.dataset.name,
            "title": config.dataset.shown_name,
            "root": config.dataset.root,
            "split": _name_split(config.dataset),
            "num_videos": len(catalog.tested),
            "num_missing": len(catalog.missing.get(TEST if catalog.test else VAL, ())),
            "list_hash": hash_videos(catalog.tested, catalog.class_names),
            **_find_seen(config, checkpoint, catalog),
        },
        "vswin": __version__,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _name_split(dataset: DatasetConfig) -> int | str | None:
    if dataset.folds:
        return f"{dataset.split} of {dataset.folds} folds"
    return dataset.split if dataset.name in WITH_SPLITS else None


def note_videos(
    videos: Sequence[Sample], class_names: Sequence[str], known: Container[str] | None = None
) -> dict[str, int]:
    """Maps the hash of each video's name and class to its file size in bytes, or 0 if the video is not a file itself.

    The weights of a run store some of these, so that an evaluation recognises the videos in another folder or list; the
    run's `videos.json` does not travel with its weights. `known` are hashes to look for; None chooses up to 32, and the
    same ones in any folder.
    """
    paths = {hash_videos([video], class_names): video.path for video in videos}
    chosen = sorted(paths)[:_NUM_NOTED] if known is None else [key for key in paths if key in known]
    return {key: os.path.getsize(paths[key]) if os.path.exists(paths[key]) else 0 for key in chosen}


def _find_seen(config: EvaluateConfig, checkpoint: Checkpoint | None, catalog: Catalog) -> dict[str, bool | None]:
    """Tells whether the weights were trained on some of the tested videos, and chosen by them; None if unknown."""
    noted = checkpoint.metadata.get("videos") if checkpoint is not None else None
    seen: dict[str, bool | None] = {}
    for key, subset in (("trained_on", TRAIN), ("chose_epoch", VAL)):
        known = noted.get(subset) if isinstance(noted, dict) else None
        if not isinstance(known, dict):
            seen[key] = None
            continue
        here = note_videos(catalog.tested, catalog.class_names, known)
        seen[key] = any(0 in (size, known[name]) or size == known[name] for name, size in here.items())
    if not catalog.test and _is_of_run(config):
        seen["chose_epoch"] = True
    return seen
