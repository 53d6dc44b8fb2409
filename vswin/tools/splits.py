"""Train and evaluate on each official split of a data set, and average the results: `vswin splits`."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from vswin.atomic import replacing
from vswin.config.compose import compose_evaluation
from vswin.config.load import ROOT
from vswin.config.schema import TrainConfig
from vswin.console import print_table
from vswin.errors import InputError
from vswin.evaluation.protocol import WITH_SPLITS, describe_protocol, load_tested
from vswin.runtime import console, default_output_dir
from vswin.weights.checkpoint import open_weights

SPLITS = (1, 2, 3)
_FIGURES = {"top1": "top-1", "top5": "top-5", "mean_class_accuracy": "mean class accuracy"}
# Keys of a protocol that may differ between two tests of the same weights on the same videos.
_ELSEWHERE = ("weights", "dataset", "decoder", "short_sides", "date", "vswin", "tensorflow")


def run_splits(config: TrainConfig, overrides: Sequence[str]) -> None:
    """Trains on each split, tests each model under the published protocol, and prints the mean.

    Each training and each test is a separate process and takes no memory from the next. Work that an earlier call with
    the same `output_dir` has finished is not repeated. `overrides` are the command line of the run.

    Raises:
        InputError: if the data set has no splits, or the command line sets `dataset.split` or `resume`.
        SystemExit: if a training or an evaluation fails, after it has printed the reason.
    """
    if config.dataset.name not in WITH_SPLITS:
        raise InputError(
            f"dataset={config.dataset.name} has no official splits; {' and '.join(WITH_SPLITS)} have three"
        )
    for key in ("dataset.split", "resume"):
        if any(override.partition("=")[0] == key for override in overrides):
            raise InputError(f"{key} is decided for each split: leave it out")
    folder = Path(config.output_dir or default_output_dir(config.model.name, f"{config.dataset.name}_splits"))
    named = [override for override in overrides if not override.startswith("output_dir=")]
    runtime = [override for override in named if override.startswith("runtime.")]
    summaries = {}
    for split in SPLITS:
        run = folder / f"split_{split}"
        console.print(f"split {split}: {run}", style="bold")
        _call("train.py", *named, f"dataset.split={split}", f"output_dir={run}", "resume=true")
        if not _is_tested(run, runtime):
            _call("evaluate.py", f"run={run}", *runtime)
        summary = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
        summaries[split] = {key: summary[key] for key in _FIGURES if key in summary}
    _report(folder, f"{config.model.name} on {config.dataset.shown_name}", summaries)


def _call(script: str, *overrides: str) -> None:
    # S603: our own scripts; the overrides are what the user of this very command line gave.
    code = subprocess.run([sys.executable, str(ROOT / script), *overrides], env=os.environ, check=False).returncode  # noqa: S603
    if code:
        raise SystemExit(code if code > 0 else 128 - code)


def _is_tested(folder: Path, overrides: Sequence[str]) -> bool:
    """Tells whether a run already holds the evaluation that `evaluate.py` would write now."""
    config = compose_evaluation(overrides, run=str(folder))
    wanted = _identity(describe_protocol(config, open_weights(str(config.init_from)), load_tested(config)))
    try:
        return _identity(json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["protocol"]) == wanted
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def _identity(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Takes the part of a protocol that does not depend on where and when the same test of the same weights runs."""
    kept = {key: value for key, value in protocol.items() if key not in _ELSEWHERE}
    videos = {key: protocol["dataset"][key] for key in ("name", "split", "num_videos", "list_hash")}
    return kept | videos | {"weights": protocol["weights"]["sha256"]}


def _report(folder: Path, title: str, summaries: Mapping[int, Mapping[str, float]]) -> None:
    """Prints the splits and their mean, and writes them to `splits.json`."""
    figures = {key: title for key, title in _FIGURES.items() if all(key in summary for summary in summaries.values())}
    means, spread = (
        {key: compute(summary[key] for summary in summaries.values()) for key in figures} for compute in (mean, stdev)
    )
    rows = {f"split {split}": summary for split, summary in summaries.items()} | {"mean": means}
    lines = [[title, *figures.values()]]
    lines += [[name, *(f"{100 * row[key]:.2f} %" for key in figures)] for name, row in rows.items()]
    print_table(console, [*lines, ["standard deviation", *(f"{100 * spread[key]:.2f}" for key in figures)]])
    with replacing(folder / "splits.json") as partial:
        content = {"mean": means, "standard_deviation": spread, "splits": summaries}
        partial.write_text(json.dumps(content, indent=2) + "\n")
    console.print(f"report: {folder / 'splits.json'}")
