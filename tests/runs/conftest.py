"""Run folders with known numbers, as training and evaluation write them."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

CLASSES = ("jump, high", "run [fast]", "Ärmel")


@pytest.fixture
def make_run(tmp_path) -> Callable[..., Path]:
    """Makes a run folder, e.g. `make_run("a", config={...}, top1=[...], hits="110x")`; all other files are absent."""

    def make(name: str, **contents: Any) -> Path:
        folder = tmp_path / "outputs" / name
        folder.mkdir(parents=True)
        fill_run(folder, **contents)
        return folder

    return make


def fill_run(
    folder: Path,
    config: dict[str, Any] | None = None,
    top1: Sequence[float] = (),
    ema: Sequence[float] = (),
    hits: str = "",
    paths: Sequence[str] = (),
    labels: Sequence[str] = (),
    classes: Sequence[str] = CLASSES,
    protocol: dict[str, Any] | None = None,
    devices: str = "",
) -> None:
    """Writes the files of a run; `hits` has one digit per test video: right (1), wrong (0) or bad (x)."""
    if config is not None:
        (folder / "config.yaml").write_text(json.dumps(config, ensure_ascii=False))  # JSON is YAML
    if devices:
        sessions = [{"devices": "something else"}, {"devices": devices}]
        (folder / "environment.json").write_text(json.dumps({"sessions": sessions}))
    if top1:
        with (folder / "history.csv").open("w", newline="") as file:
            columns = ["epoch", "loss", "val_loss", "val_top1", "clips_per_sec", *(["val_ema_top1"] if ema else [])]
            writer = csv.writer(file)
            writer.writerow(columns)
            for epoch, share in enumerate(top1):
                writer.writerow([epoch, 2 - share, 2.5 - share, share, 10.0 + epoch, *([ema[epoch]] if ema else [])])
    if not hits:
        return
    paths = paths or [f"/data/videos/{number}.mp4" for number in range(len(hits))]
    labels = labels or [classes[number % len(classes)] for number in range(len(hits))]
    with (folder / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "label", "label_name", "class_1", "probability_1"])
        for path, label, hit in zip(paths, labels, hits, strict=True):
            wrong = next(name for name in classes if name != label)
            best = {"1": [label, "0.900000"], "0": [wrong, "0.500000"], "x": ["", ""]}[hit]
            writer.writerow([path, classes.index(label), label, *best])
    with (folder / "per_class.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["label", "label_name"], *enumerate(classes)])
    share = hits.count("1") / len(hits)
    dataset = {"name": "folder", "root": "/data/videos", "split": None, "list_hash": "0" * 16}
    metrics = {
        **{"top1": share, "top5": 0.95, "mean_class_accuracy": share, "num_videos": len(hits)},
        "top1_interval": [0.1, 0.9],
        "protocol": {
            **{"num_frames": 8, "num_clips": 4, "num_crops": 3, "average": "prob", "date": folder.name},
            **{"dataset": dataset, "vswin": "0.1.0", "tensorflow": "2.21.0"},
            **(protocol or {}),
        },
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
