"""The mean over the official splits of a data set: a training and an evaluation of each; called by `vswin splits`."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from vswin.atomic import replacing
from vswin.compose import compose_evaluation
from vswin.config import ROOT
from vswin.errors import InputError
from vswin.evaluation.protocol import describe_protocol, load_tested
from vswin.runtime import console, default_output_dir
from vswin.schema import TrainConfig
from vswin.tables import print_table
from vswin.weights.checkpoint import open_weights

SPLITS = (1, 2, 3)
_WITH_SPLITS = ("ucf101", "hmdb51")
_ELSEWHERE = ("weights", "dataset", "decoder", "short_sides", "date", "vswin", "tensorflow")


def run_splits(config: TrainConfig, overrides: Sequence[str]) -> None:
    """Trains on each split, tests each under the published protocol, and prints the mean.

    What an earlier call with the same `output_dir` has done is not done again.

    Args:
        config: the run of a split, checked.
        overrides: the command line behind it.

    Raises:
        InputError: if the data set has no splits, or the command line says what is decided here.
        SystemExit: if a training or an evaluation fails; it has said why.
    """
    if config.dataset.name not in _WITH_SPLITS:
        raise InputError(
            f"dataset={config.dataset.name} has no official splits; {' and '.join(_WITH_SPLITS)} have three"
        )
    for key in ("dataset.split", "resume"):
        if any(override.partition("=")[0] == key for override in overrides):
            raise InputError(f"{key} is decided for each split: leave it out")
    folder = Path(config.output_dir or default_output_dir(config.model.name, f"{config.dataset.name}_splits"))
    summaries = [_run_split(folder / f"split_{split}", split, overrides) for split in SPLITS]
    _report(folder, config, summaries)


def _run_split(folder: Path, split: int, overrides: Sequence[str]) -> dict[str, float]:
    """Trains and tests in processes of their own, so that one split leaves the next nothing, and no memory taken."""
    named = [override for override in overrides if not override.startswith("output_dir=")]
    console.print(f"split {split}: {folder}", style="bold")
    _call("train.py", *named, f"dataset.split={split}", f"output_dir={folder}", "resume=true")
    runtime = [override for override in named if override.startswith("runtime.")]
    if not _is_tested(folder, runtime):
        _call("evaluate.py", f"run={folder}", *runtime)
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def _is_tested(folder: Path, overrides: Sequence[str]) -> bool:
    """Tells whether a run holds the evaluation that `evaluate.py` would make of it now."""
    config = compose_evaluation(overrides, run=str(folder))
    wanted = _identity(describe_protocol(config, open_weights(str(config.init_from)), load_tested(config)))
    try:
        return _identity(json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["protocol"]) == wanted
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def _identity(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Takes from a protocol what is the same wherever and whenever the same weights are tested in the same way."""
    kept = {key: value for key, value in protocol.items() if key not in _ELSEWHERE}
    videos = {key: protocol["dataset"][key] for key in ("name", "split", "num_videos", "list_hash")}
    return kept | videos | {"weights": protocol["weights"]["sha256"]}


def _call(script: str, *overrides: str) -> None:
    # S603: our own scripts; the overrides are what the user of this very command line gave.
    code = subprocess.run([sys.executable, str(ROOT / script), *overrides], env=os.environ, check=False).returncode  # noqa: S603
    if code:
        raise SystemExit(code if code > 0 else 128 - code)


def _report(folder: Path, config: TrainConfig, summaries: Sequence[dict[str, float]]) -> None:
    """Prints the splits and their mean, and writes them to `splits.json`."""
    lines = [[f"{config.model.name} on {config.dataset.name}", "top-1", "top-5", "mean class accuracy"]]
    keys = ("top1", "top5", "mean_class_accuracy")
    for split, summary in zip(SPLITS, summaries, strict=True):
        lines.append([f"split {split}", *(f"{100 * summary[key]:.2f} %" for key in keys)])
    means = {key: mean(summary[key] for summary in summaries) for key in keys}
    spread = {key: stdev(summary[key] for summary in summaries) for key in keys}
    lines.append(["mean", *(f"{100 * means[key]:.2f} %" for key in keys)])
    lines.append(["standard deviation", *(f"{100 * spread[key]:.2f}" for key in keys)])
    print_table(console, lines)
    with replacing(folder / "splits.json") as partial:
        splits = {
            str(split): {key: summary[key] for key in keys} for split, summary in zip(SPLITS, summaries, strict=True)
        }
        partial.write_text(json.dumps({"mean": means, "standard_deviation": spread, "splits": splits}, indent=2) + "\n")
    console.print(f"report: {folder / 'splits.json'}")
