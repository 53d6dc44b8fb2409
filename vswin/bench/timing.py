"""Times contenders side by side: they take turns, so that what disturbs the machine meets them all alike."""

import time
from collections.abc import Callable, Mapping
from typing import TypeAlias

from vswin.errors import InputError
from vswin.runtime import console
from vswin.tables import make_progress_bar

# Runs once and says how many seconds it took; one that lives in another process has its own clock.
Contender: TypeAlias = Callable[[], float]


def timed(run: Callable[[], object]) -> Contender:
    """Makes a contender of what runs in this process.

    Args:
        run: what to time; when it returns, its work is done, on a GPU as well.
    """

    def contender() -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    return contender


def interleave(contenders: Mapping[str, Contender], rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Lets every contender run once in each round.

    Args:
        contenders: name -> contender, in the order in which they run.
        rounds: rounds that count, at least 1.
        warm_up: rounds before them that do not: graphs are traced, caches and pools filled.

    Returns:
        Name -> seconds of each round.

    Raises:
        InputError: if no round counts.
    """
    check_counts({"--rounds": rounds})
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    with make_progress_bar(console, "runs") as bar:
        task = bar.add_task("", total=(warm_up + rounds) * len(contenders), note="")
        for number in range(-warm_up, rounds):
            for name, contender in contenders.items():
                bar.update(task, description="warm-up" if number < 0 else f"round {number + 1}", note=name)
                taken = contender()
                bar.advance(task)
                if number >= 0:
                    seconds[name].append(taken)
    return seconds


def check_counts(counts: Mapping[str, int]) -> None:
    """Checks options that count something.

    Args:
        counts: option -> its value.

    Raises:
        InputError: if one is below 1.
    """
    for option, count in counts.items():
        if count < 1:
            raise InputError(f"{option} {count}: at least 1")
