"""The command line of `vswin bench`; nothing here imports TensorFlow."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from vswin.parser import Commands, Parser

if TYPE_CHECKING:
    from vswin.bench.result import Result

_EXAMPLES = {
    "model": """examples:
  vswin bench model                                      swin_tiny on one clip of 32 x 224 x 224, float32
  vswin bench model --precision float32 bfloat16         both, compared in one run
  vswin bench model --batch 4 --json model.json          four clips at once; keep the result
  vswin bench model --compare benchmarks/results/.../model.json""",
    "input": """examples:
  vswin bench input                                      the official Kinetics recipe on videos made for the purpose
  vswin bench input --videos a.mp4 b.avi --threads 1 2 4
  vswin bench input clip=16x4 augment=strong --isolate   another recipe; in processes of its own as well""",
    "step": """examples:
  vswin bench step                                       AdamW by the recipe, one clip of 32 x 224 x 224, float32
  vswin bench step --remat --memory                      what rematerialisation costs and saves
  vswin bench step --batch 4 --micro-batches 4           four clips at once, and one after another""",
}


def add_bench(commands: Commands) -> None:
    """Adds `bench` and its subcommands to those of `vswin`."""
    text = "measure this machine: the model, a training step, the input pipeline"
    end = "Contenders take turns, medians are compared. vswin bench COMMAND --help says more about a command."
    benchmarks = commands.add_command("bench", text, end).add_commands()
    _add_model(benchmarks)
    _add_step(benchmarks)
    _add_input(benchmarks)


def _add(benchmarks: Commands, name: str, text: str, rounds: int) -> Parser:
    """Adds a subcommand with the options that all have."""
    parser = benchmarks.add_command(name, text, _EXAMPLES[name])
    parser.add_argument("--rounds", type=int, default=rounds, help=f"runs of each contender, in turns ({rounds})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything that was measured, as JSON")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="compare with what --json wrote earlier")
    return parser


def _add_workload(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say what the network computes."""
    parser.add_argument("--model", default="swin_tiny", help="size of the network (swin_tiny)")
    parser.add_argument("--frames", type=int, default=32, help="frames of a clip (32)")
    parser.add_argument("--size", type=int, default=224, help="pixels of a frame's side (224)")
    parser.add_argument("--batch", type=int, default=1, help="clips at once (1)")
    parser.add_argument(
        "--precision",
        nargs="+",
        default=["float32"],
        metavar="NAME",
        help="float32 (default), bfloat16, float16; several are compared",
    )


def _add_model(benchmarks: Commands) -> None:
    text = "forward pass: seconds, clips per second, and the share of what a large matrix product reaches"
    parser = _add(benchmarks, "model", text, rounds=7)
    _add_workload(parser)
    parser.set_defaults(run=_model)


def _model(arguments: argparse.Namespace) -> None:
    from vswin.bench.model import Workload, bench_model

    workload = Workload(arguments.model, arguments.frames, arguments.size, arguments.batch)
    _report(bench_model(workload, arguments.precision, arguments.rounds), arguments)


def _add_step(benchmarks: Commands) -> None:
    text = "training step as `vswin train` takes it: seconds, share of the matrix products' rate, memory"
    parser = _add(benchmarks, "step", text, rounds=5)
    _add_workload(parser)
    parser.add_argument("--remat", action="store_true", help="also with runtime.remat=true")
    parser.add_argument("--micro-batches", type=int, default=1, metavar="N", help="also with runtime.micro_batches=N")
    parser.add_argument("--jit", action="store_true", help="also with runtime.jit=true, which takes minutes first")
    parser.add_argument("--memory", action="store_true", help="also the peak memory, each in a process of its own")
    parser.set_defaults(run=_step)


def _step(arguments: argparse.Namespace) -> None:
    from vswin.bench.model import Workload
    from vswin.bench.step import bench_step, list_ways

    workload = Workload(arguments.model, arguments.frames, arguments.size, arguments.batch)
    ways = list_ways(arguments.precision, arguments.remat, arguments.micro_batches, arguments.jit)
    result = bench_step(workload, ways, arguments.rounds)
    if arguments.memory:
        from vswin.bench.step import measure_memory

        for row, way in zip(result.rows, ways, strict=True):
            row.figures = {**row.figures, **measure_memory(workload, way)}
    _report(result, arguments)


def _add_input(benchmarks: Commands) -> None:
    text = "input pipeline of training: clips per second by number of threads"
    parser = _add(benchmarks, "input", text, rounds=5)
    _add_overrides(parser, "train", "clip=16x4")
    _add_videos(parser)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="N", help="threads that decode (1 2)")
    parser.add_argument("--isolate", action="store_true", help="also with dataset.isolate=true")
    parser.set_defaults(run=_input)


def _input(arguments: argparse.Namespace) -> None:
    from vswin.bench.input import bench_input, videos_at

    with videos_at(arguments.videos) as videos:
        result = bench_input(videos, arguments.overrides, arguments.threads, arguments.isolate, arguments.rounds)
    _report(result, arguments)


def _add_overrides(parser: argparse.ArgumentParser, command: str, example: str) -> None:
    text = f"as for vswin {command}, e.g. {example}"
    parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help=text)


def _add_videos(parser: argparse.ArgumentParser) -> None:
    text = "video files to read; without, three of 150 frames with a short side of 256 px are made (seconds)"
    parser.add_argument("--videos", type=Path, nargs="+", metavar="FILE", help=text)


def _report(result: "Result", arguments: argparse.Namespace) -> None:
    from vswin.bench.result import print_result, save_result

    if arguments.json is not None:
        save_result(result, arguments.json)
    print_result(result, arguments.compare)
