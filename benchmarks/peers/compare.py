"""Measure vswin and other implementations in turns, each in its own process and environment.

    python benchmarks/peers/install.py                                      once
    python benchmarks/peers/compare.py forward --precision float32 bfloat16
    python benchmarks/peers/compare.py step --peers keras_cv                with peak memory
    python benchmarks/peers/compare.py input                                training clips on one thread

Swin-T on one clip of 32 x 224 x 224 with random weights; a step is forward, backward and AdamW under cross entropy,
without augmentation. `input` loads 36 clips of the three videos in tests/clips by the official Kinetics recipe.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from install import ENVIRONMENTS, find_python
from peer_process import PeerError, PeerProcess
from protocol import Case

from vswin.errors import InputError, clean_errors
from vswin.runtime import console
from vswin.tools.bench_input import BATCH_SIZE, NUM_BATCHES
from vswin.tools.bench_result import Result, Row, interleave, show_result

HERE = Path(__file__).resolve().parent
CLIPS = HERE.parents[1] / "tests" / "clips"
VIDEOS = [str(CLIPS / name) for name in ("demo.mp4", "test.avi", "flipping_a_pancake.mkv")]
# Task -> peer -> variants in which the peer can do the task.
VARIANTS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "forward": {"keras_cv": ("graph", "onednn", "xla"), "torchvision": ("eager", "compiled")},
    "step": {"keras_cv": ("graph", "onednn", "xla"), "torchvision": ("eager", "compiled")},
    "input": {"decord": ("",)},
}


def list_contenders(arguments: argparse.Namespace) -> Iterator[tuple[str, list[str], Case]]:
    """Lists the contenders, vswin first: name, command and case.

    Raises:
        InputError: if a peer does not have the task or is not installed, or if no peer has a requested variant.
    """
    task, known = arguments.task, VARIANTS[arguments.task]
    peers = list(known) if arguments.peers is None else arguments.peers
    for peer in peers:
        if peer not in known:
            raise InputError(f"--peers {peer}: {task} is measured with {', '.join(known)}")
        if not find_python(peer).exists():
            raise InputError(f"there is no {ENVIRONMENTS / peer}; python benchmarks/peers/install.py {peer} makes it")
    for variant in arguments.variants or ():
        if not any(variant in known[peer] for peer in peers):
            raise InputError(f"--variants {variant}: of {', '.join(name for peer in peers for name in known[peer])}")
    videos = VIDEOS if task == "input" else ()
    for precision in ["float32"] if task == "input" else arguments.precision:
        contenders = [("vswin", sys.executable, "")]
        if task == "step":
            asked = {"remat": arguments.remat, "jit": arguments.jit}
            contenders += [("vswin", sys.executable, variant) for variant, is_asked in asked.items() if is_asked]
        contenders += [
            (peer, str(find_python(peer)), variant)
            for peer in peers
            for variant in known[peer]
            if arguments.variants is None or variant in arguments.variants
        ]
        for peer, python, variant in contenders:
            name = " ".join(filter(None, (peer, variant, "" if task == "input" else precision)))
            case = Case(task, variant, precision, arguments.frames, arguments.size, arguments.batch, videos)
            yield name, [python, str(HERE / f"{peer}_peer.py")], case


def compare(contenders: Sequence[tuple[str, list[str], Case]], rounds: int, clips: int) -> Result:
    """Starts all contenders, runs them in turns, and asks for their memory.

    Args:
        contenders: name, command and case of each.
        rounds: runs of each contender.
        clips: clips per run.

    Returns:
        A row for each contender that can run the case, with `clips_per_second`, and the memory of training steps.
        `notes` list the versions, and why the other contenders cannot run it.

    Raises:
        InputError: if the first contender cannot run its case.
    """
    case = contenders[0][2]
    options = {"frames": case.num_frames, "size": case.size, "batch": case.batch_size}
    result = Result(f"peers {case.task}", options, [])
    with ExitStack() as running:
        peers: dict[str, PeerProcess] = {}
        for name, command, case in contenders:
            try:
                peer = running.enter_context(PeerProcess(command, case))
                peer.run()
            except PeerError as error:
                if not peers:
                    raise InputError(f"{name}: {error}") from error
                result.notes[f"{name} cannot do this"] = [str(error)]
                continue
            peers[name] = peer
            console.print(f"{name} is ready", style="dim")
            result.notes[name] = [f"{package} {version}" for package, version in peer.versions.items()]
        for name, seconds in interleave({name: peer.run for name, peer in peers.items()}, rounds).items():
            row = Row(name, seconds)
            row.figures = {"clips_per_second": clips / row.median}
            if case.task == "step":
                before, peak = peers[name].peaks()
                row.figures |= {"step_gb": peak - before, "process_gb": peak}
            result.rows.append(row)
    return result


def main() -> None:
    """Measures and prints a table; vswin is the first row, and speeds are multiples of its speed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=list(VARIANTS), help="what is measured")
    parser.add_argument("--peers", nargs="+", metavar="PEER", help="keras_cv, torchvision; input: decord (all)")
    parser.add_argument(
        "--variants", nargs="+", metavar="NAME", help="graph, xla, eager, compiled (all); two take minutes first"
    )
    parser.add_argument("--precision", nargs="+", default=["float32"], choices=["float32", "bfloat16"], metavar="NAME")
    parser.add_argument("--remat", action="store_true", help="step: vswin with runtime.remat=true as well")
    parser.add_argument("--jit", action="store_true", help="step: vswin with runtime.jit=true as well")
    parser.add_argument("--frames", type=int, default=32, help="frames of a clip (32)")
    parser.add_argument("--size", type=int, default=224, help="pixels of a frame's side (224)")
    parser.add_argument("--batch", type=int, default=1, help="clips at once (1)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each contender, in turns (5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything that was measured, as JSON")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="compare with what --json wrote earlier")
    arguments = parser.parse_args()
    with clean_errors():
        clips = NUM_BATCHES * BATCH_SIZE if arguments.task == "input" else arguments.batch
        result = compare(list(list_contenders(arguments)), arguments.rounds, clips)
        show_result(result, arguments.json, arguments.compare)


if __name__ == "__main__":
    main()
