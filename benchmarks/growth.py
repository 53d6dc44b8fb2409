"""Measure how cost grows with the size of clips, and with the number of videos.

    python benchmarks/growth.py clips --json clips.json --plot docs/images/growth_clips.png
    python benchmarks/growth.py records --json records.json --plot docs/images/growth_records.png

`clips` runs the forward pass of swin_tiny on clips with more frames, on more pixels, and on more clips per batch, each
in a separate process. It compares time and memory with linear growth in the number of tokens from the smallest clip.
`records` makes lists of up to a million videos (hard links to real files), and times the list and the first batch.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from vswin.config.compose import compose_config
from vswin.config.schema import TrainConfig
from vswin.console import print_table
from vswin.data.bad_videos import BadVideos
from vswin.data.catalog import load_catalog
from vswin.data.order import Order
from vswin.data.pipeline import make_train_dataset
from vswin.runs.environment import describe_machine, summarise
from vswin.runtime import console
from vswin.tools.bench_model import Workload, make_forward
from vswin.tools.bench_result import timed
from vswin.training.memory import peak_gb

MODEL = "swin_tiny"
FRAMES = (8, 16, 32, 64, 128)
SIZES = (112, 160, 224, 320, 448)
BATCHES = (1, 2, 4, 8, 16)
RECORDS = (1_000, 10_000, 100_000, 1_000_000)
CLIPS = Path(__file__).resolve().parent.parent / "tests" / "clips"
_FILES_PER_FOLDER = 1_000

Table = dict[str, list[dict[str, float]]]


def list_workloads() -> dict[str, list[Workload]]:
    """Lists three series; one quantity grows in each."""
    return {
        "frames": [Workload(MODEL, frames, 112, 1) for frames in FRAMES],
        "pixels of a side": [Workload(MODEL, 8, size, 1) for size in SIZES],
        "clips at once": [Workload(MODEL, 8, 112, batch) for batch in BATCHES],
    }


def measure_clips(rounds: int) -> Table:
    """Measures every series: the value, tokens of the patch embedding, seconds (median), and GB of a pass."""
    found: Table = {}
    for title, workloads in list_workloads().items():
        found[title] = []
        for workload in workloads:
            command = [sys.executable, __file__, "one", json.dumps(asdict(workload)), "--rounds", str(rounds)]
            measured = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            value = {"frames": workload.num_frames, "pixels of a side": workload.size}.get(title, workload.batch_size)
            tokens = workload.batch_size * workload.num_frames // 2 * (workload.size // 4) ** 2
            found[title].append({"value": value, "tokens": tokens, "flops": workload.flops, **measured})
            print(title, found[title][-1], file=sys.stderr)
    return found


def measure_one(workload: Workload, rounds: int) -> dict[str, float]:
    """Measures one forward pass in this process."""
    run = make_forward(workload, "float32")
    before = peak_gb()
    contender = timed(run)
    contender()
    return {"seconds": median(contender() for _ in range(rounds)), "memory_gb": peak_gb() - before}


def measure_records(counts: Iterable[int]) -> Table:
    """Measures lists: seconds to read and check a list, seconds from then to the first batch, and GB of both."""
    found: Table = {"videos": []}
    with tempfile.TemporaryDirectory() as folder:
        for count in counts:
            root = Path(folder) / str(count)
            _make_list(root, count)
            command = [sys.executable, __file__, "list", str(root)]
            measured = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            found["videos"].append({"value": count, **measured})
            print(found["videos"][-1], file=sys.stderr)
    return found


def measure_list(root: Path) -> dict[str, float]:
    """Starts the training pipeline on a list in this process, up to the first batch and ten more."""
    overrides = ["dataset=folder", f"dataset.root={root}", "batch_size=2", "clip=8x1_64px", "augment=none"]
    overrides += [f"dataset.{split}_list={root / 'list.txt'}" for split in ("train", "val")]
    config = compose_config("train", overrides, TrainConfig)
    before, start = peak_gb(), time.perf_counter()
    catalog = load_catalog(config.dataset)
    listed = time.perf_counter()
    order = Order(seed=0, batch_size=config.batch_size, epochs=1)
    batches = iter(make_train_dataset(catalog.train, config.clip, config.augment, False, order, BadVideos()))
    made = time.perf_counter()
    next(batches)
    first = time.perf_counter()
    for _ in range(10):
        next(batches)
    return {
        "list_seconds": listed - start,
        "pipeline_seconds": made - listed,
        "first_batch_seconds": first - made,
        "batch_seconds": (time.perf_counter() - first) / 10,
        "memory_gb": peak_gb() - before,
    }


def _make_list(root: Path, count: int) -> None:
    """Writes a list of hard links to copies of one clip, in ten classes; symbolic links would count as one video."""
    with _opened(root / "list.txt") as file:
        for start in range(0, count, _FILES_PER_FOLDER):
            folder = root / f"{start // _FILES_PER_FOLDER:04d}"
            folder.mkdir()
            target = Path(shutil.copy(CLIPS / "test.avi", folder / "copy"))
            for number in range(start, min(start + _FILES_PER_FOLDER, count)):
                (folder / f"{number}.avi").hardlink_to(target)
                file.write(f"{folder.name}/{number}.avi {number % 10}\n")


def _opened(path: Path) -> Any:
    path.parent.mkdir()
    return path.open("w")


def print_clips(table: Table) -> None:
    """Prints each series, with the growth of time and memory from the first row relative to the tokens."""
    for title, rows in table.items():
        lines = [[title, "s", "us/token", "time / linear", "GB", "memory / linear"]]
        for row in rows:
            factor = row["tokens"] / rows[0]["tokens"]
            lines.append(
                [
                    f"{row['value']:g}",
                    f"{row['seconds']:.3g}",
                    f"{1e6 * row['seconds'] / row['tokens']:.1f}",
                    f"{row['seconds'] / rows[0]['seconds'] / factor:.2f}",
                    f"{row['memory_gb']:.2f}",
                    f"{row['memory_gb'] / rows[0]['memory_gb'] / factor:.2f}",
                ]
            )
        print_table(console, lines)
        slope = np.polyfit(np.log([r["tokens"] for r in rows]), np.log([r["seconds"] for r in rows]), 1)[0]
        print(f"time grows with the tokens to the power of {slope:.2f}\n")


def print_records(table: Table) -> None:
    """Prints the lists, and how the time grows from each list to the next."""
    rows = table["videos"]
    keys = [key for key in rows[0] if key != "value"]
    lines = [[f"{row['value']:,}", *(f"{row[key]:.3g}" for key in keys)] for row in rows]
    print_table(console, [["videos", *keys], *lines])
    for smaller, larger in pairwise(rows):
        ratio = larger["list_seconds"] / smaller["list_seconds"]
        print(f"{larger['value'] / smaller['value']:g} times the videos take {ratio:.1f} times as long to list")


def plot(table: Table, keys: dict[str, str], reference: str, path: Path) -> None:
    """Draws each series on logarithmic axes into a PNG, with a line proportional to `reference`.

    `keys` maps each figure to its name and unit; the cost should grow at most as fast as `reference`.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(keys), len(table), figsize=(4.2 * len(table), 3.2 * len(keys)), squeeze=False)
    for column, (title, rows) in enumerate(table.items()):
        values = [row["value"] for row in rows]
        for axis, (key, name) in zip(axes[:, column], keys.items(), strict=True):
            measured = [row[key] for row in rows]
            linear = [measured[-1] * row[reference] / rows[-1][reference] for row in rows]
            axis.loglog(values, measured, "o-", color="#1f77b4", label="measured")
            axis.loglog(values, linear, "--", color="#888888", label="linear")
            axis.set_xticks(values, [f"{value:,.0f}" for value in values])
            axis.minorticks_off()
            axis.set_xlabel(title)
            axis.set_ylabel(name)
            axis.grid(alpha=0.3)
    axes[0, 0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measures, prints a table, and writes JSON and a plot with `--json` and `--plot`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["clips", "records", "one", "list"], help="the last two are the parts of those")
    parser.add_argument("part", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=3, help="forward passes of each workload (3)")
    parser.add_argument("--most", type=int, default=RECORDS[-1], help="videos of the longest list (1000000)")
    parser.add_argument("--json", type=Path, help="also write the figures into this file")
    parser.add_argument("--plot", type=Path, help="also draw them into this PNG")
    arguments = parser.parse_args()
    if arguments.what == "one":
        print(json.dumps(measure_one(Workload(**json.loads(arguments.part)), arguments.rounds)))
        return
    if arguments.what == "list":
        print(json.dumps(measure_list(Path(arguments.part))))
        return
    machine = describe_machine()
    print(summarise(machine))
    if arguments.what == "clips":
        table = measure_clips(arguments.rounds)
        print_clips(table)
        keys, reference = {"seconds": "forward pass, s", "memory_gb": "memory of it, GB"}, "tokens"
    else:
        table = measure_records([count for count in RECORDS if count <= arguments.most])
        print_records(table)
        keys, reference = {"list_seconds": "reading the list, s", "memory_gb": "memory, GB"}, "value"
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "table": table}, indent=2) + "\n")
    if arguments.plot:
        plot(table, keys, reference, arguments.plot)


if __name__ == "__main__":
    main()
