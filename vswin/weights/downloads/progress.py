"""Show how far a download is: a bar on a terminal, a line now and then in a log. Used by `transfer`."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from vswin.console import Console, logger

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def report_progress(title: str, start: int, total: int | None) -> Iterator[Callable[[int], None]]:
    """Shows progress while a file comes in.

    Args:
        title: name of the file.
        start: bytes that are here already.
        total: bytes of the whole file; None if unknown.

    Yields:
        A function that is told how many bytes have come.
    """
    console = Console(is_stderr=True)
    if not console.is_terminal:
        yield _make_line_reporter(title, start, total)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=total, completed=start)
        yield lambda num_bytes: bar.advance(task, num_bytes)


def _make_line_reporter(title: str, start: int, total: int | None) -> Callable[[int], None]:
    """Makes a function that counts bytes and logs a line every ten seconds."""
    started = last_line = time.monotonic()
    done = start

    def advance(num_bytes: int) -> None:
        nonlocal done, last_line
        done += num_bytes
        now = time.monotonic()
        if now - last_line >= SECONDS_BETWEEN_LINES:
            last_line = now
            of_total = f" of {total / 1e6:,.1f} MB ({done / total:.0%})" if total else " MB"
            speed = (done - start) / (now - started) / 1e6
            logger.info("%s: %s%s, %.1f MB/s", title, f"{done / 1e6:,.1f}", of_total, speed)

    return advance
