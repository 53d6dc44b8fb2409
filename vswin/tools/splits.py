"""Train and test on each split or fold of a data set, with one seed or several: `vswin splits`."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from vswin.atomic import replacing
from vswin.config.compose import compose_evaluation
from vswin.config.load import ROOT
from vswin.config.schema import SplitsConfig
from vswin.console import print_table, say
from vswin.errors import InputError
from vswin.evaluation.protocol import WITH_SPLITS, describe_protocol, load_tested
from vswin.runs.files import Run, read_run
from vswin.runs.multi_label import f1_scores, mean_average_precision
from vswin.runtime import console, default_output_dir
from vswin.weights.checkpoint import open_weights

SPLITS = (1, 2, 3)
_FIGURES = {
    **{"top1": "top-1", "top5": "top-5", "mean_class_accuracy": "mean class accuracy"},
    **{"map": "mAP", "f1_micro": "micro F1", "f1_macro": "macro F1"},
}
# Keys of a protocol that may differ between two tests of the same weights on the same videos.
_ELSEWHERE = ("weights", "dataset", "decoder", "short_sides", "date", "vswin", "tensorflow")
# Keys that this command sets for each run.
_OWN = ("output_dir", "folds", "seeds", "seed", "dataset.folds")


def run_splits(config: SplitsConfig, overrides: Sequence[str]) -> None:
    """Trains on each split or fold with each seed, tests each model, and reports the figures and their mean.

    Each training and each test is a separate process and takes no memory from the next. Work that an earlier call with
    the same `output_dir` has finished is not repeated. `overrides` are the command line of the run.

    Raises:
        InputError: if there is only one run to make, or the command line sets `dataset.split` or `resume`.
        SystemExit: if a training or an evaluation fails, after it has printed the reason.
    """
    folds = config.dataset.folds
    numbers: Sequence[int | None] = [None]
    if folds:
        numbers = range(1, folds + 1)
    elif config.dataset.name in WITH_SPLITS:
        numbers = SPLITS
    elif config.seeds == 1:
        raise InputError(
            f"dataset={config.dataset.name} has no official splits, as {' and '.join(WITH_SPLITS)} have; set folds=5 "
            "to divide it, or seeds=3 to train on its own split with three seeds"
        )
    for key in ("dataset.split", "resume"):
        if any(override.partition("=")[0] == key for override in overrides):
            raise InputError(f"{key} is decided for each run: leave it out")
    folder = Path(config.output_dir or default_output_dir(config.model.name, f"{config.dataset.name}_splits"))
    say(console, f"output: {folder}; if this call is stopped, the same with output_dir={folder} goes on", style="dim")
    named = [override for override in overrides if override.partition("=")[0] not in _OWN]
    named += [f"dataset.folds={folds}"] if folds else []
    runtime = [override for override in named if override.startswith("runtime.")]
    runs = {}
    for number, seed in product(numbers, range(config.seed, config.seed + config.seeds)):
        place = [] if number is None else [f"{'fold' if folds else 'split'} {number}"]
        chosen = [] if number is None else [f"dataset.split={number}"]
        title = ", ".join([*place, f"seed {seed}"])
        run = folder / title.replace(", ", "_").replace(" ", "_")
        console.print(f"{title}: {run}", style="bold")
        _call("train.py", *named, *chosen, f"seed={seed}", f"output_dir={run}", "resume=true")
        if not _is_tested(run, runtime):
            _call("evaluate.py", f"run={run}", *runtime)
        runs[title] = read_run("", title, run)
    _report(folder, f"{config.model.name} on {config.dataset.shown_name}", runs, config)


def _call(script: str, *overrides: str) -> None:
    # S603: our own scripts; the overrides are what the user of this very command line gave.
    code = subprocess.run([sys.executable, str(ROOT / script), *overrides], env=os.environ, check=False).returncode  # noqa: S603
    if code:
        raise SystemExit(code if code > 0 else 128 - code)


def _is_tested(folder: Path, overrides: Sequence[str]) -> bool:
    """Tells whether a run already holds the evaluation that `evaluate.py` would write now."""
    if not (folder / "predictions.csv").exists():
        return False
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


def _report(folder: Path, title: str, runs: Mapping[str, Run], config: SplitsConfig) -> None:
    """Prints the figures of all runs, their mean and the pooled ones, and writes them to `splits.json`."""
    found = {name: run.metrics or {} for name, run in runs.items()}
    figures = {key: text for key, text in _FIGURES.items() if all(key in metrics for metrics in found.values())}
    rows = {name: {key: metrics[key] for key in figures} for name, metrics in found.items()}
    content: dict[str, Any] = {"runs": rows}
    for name, compute in (("mean", mean), ("standard_deviation", stdev)):
        content[name] = {key: compute(row[key] for row in rows.values()) for key in figures}
    if config.dataset.folds:
        content["pooled"] = _pool(list(runs.values()), list(rows.values()), list(figures))
    lines = [[title, *figures.values()]]
    for name, row in (rows | {name: row for name, row in content.items() if name != "runs"}).items():
        unit = "" if name == "standard_deviation" else " %"
        lines.append([name.replace("_", " "), *(f"{100 * row[key]:.2f}{unit}" for key in figures)])
    print_table(console, lines)
    if config.dataset.folds:
        each = "" if config.seeds == 1 else f"; each video counts {config.seeds} times, once with each seed"
        say(console, f"pooled: over the predictions of all folds together{each}", style="dim")
    with replacing(folder / "splits.json") as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")
    console.print(f"report: {folder / 'splits.json'}")


def _pool(runs: Sequence[Run], rows: Sequence[Mapping[str, float]], figures: Sequence[str]) -> dict[str, float]:
    """Computes figures over the predictions of all runs together."""
    results = [run.predictions for run in runs if run.predictions]

    def mark(texts: Iterable[str]) -> np.ndarray:
        chosen = [text.split(";") if runs[0].is_multi_label else [text] for text in texts]
        return np.array([[name in names for name in runs[0].class_names] for names in chosen], float)

    targets = mark(text for result in results for text in result.labels)  # [N, K]
    predicted = mark(text for result in results for text in result.predicted)
    num_videos, num_hits = targets.sum(axis=0), (targets * predicted).sum(axis=0)
    pooled = dict(zip(("f1_micro", "f1_macro"), f1_scores(targets, predicted), strict=True))
    pooled["mean_class_accuracy"] = float((num_hits / np.maximum(num_videos, 1))[num_videos > 0].mean())
    weights = [len(result.labels) for result in results]
    for key in {"top1", "top5"}.intersection(figures):
        pooled[key] = float(np.average([row[key] for row in rows], weights=weights))
    if "map" in figures:
        scores = [result.scores for result in results if result.scores is not None]
        pooled["map"] = mean_average_precision(targets, np.concatenate(scores))
    return {key: pooled[key] for key in figures}
