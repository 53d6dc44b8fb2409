"""What a person reads, on a terminal, in a pipe and in the file of a log: everything that is shown goes through here.

Here names from files, which may come from anybody, lose what a terminal would obey, and here it is noticed that a
terminal or the reader of a pipe is gone.
"""

import errno
import logging
import os
import stat
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TextIO

import rich.console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment

from vswin.errors import drop_output
from vswin.wording import printable, printable_lines

logger = logging.getLogger("vswin")


def _spell_out(record: logging.LogRecord) -> bool:
    """Makes a message, or the lines of one, printable."""
    lines = record.msg if isinstance(record.msg, list) else [record.getMessage()]
    record.msg, record.args = "\n".join(map(printable_lines, lines)), ()
    return True


logger.addFilter(_spell_out)


class _Output:
    """Writes to standard output or error; shows nothing more once the terminal is gone."""

    def __init__(self, is_stderr: bool, has_log: bool) -> None:
        self._is_stderr = is_stderr
        self._has_log = has_log

    def write(self, text: str) -> int:
        return self._try(lambda stream: stream.write(text)) or 0

    def flush(self) -> None:
        self._try(lambda stream: stream.flush())

    def __getattr__(self, name: str) -> Any:
        """Has everything else from the stream, e.g. `isatty` and `encoding`."""
        return getattr(self._stream, name)

    @property
    def _stream(self) -> TextIO:
        stream = sys.stderr if self._is_stderr else sys.stdout
        # While a bar is shown, rich has what others print pass through the console, which would come back here.
        return getattr(stream, "rich_proxied_file", stream)

    def _try(self, use: Callable[[TextIO], Any]) -> Any:
        stream = self._stream
        try:
            return use(stream)
        except OSError as error:
            # A terminal that is closed gives the error of a lost disk.
            is_lost = error.errno == errno.EIO and stat.S_ISCHR(os.fstat(stream.fileno()).st_mode)
            if not is_lost and not self._has_log:
                raise
            drop_output(stream)


class Console(rich.console.Console):
    """Prints tables, paragraphs and bars, in which control characters are spelt out."""

    def __init__(self, is_stderr: bool = False, **options: Any) -> None:
        super().__init__(highlight=False, **options)
        self.set_output(is_stderr)

    def set_output(self, is_stderr: bool, has_log: bool = False) -> None:
        """Chooses standard output or error, and whether a log goes on where nobody reads them any more."""
        self.file = _Output(is_stderr, has_log)  # type: ignore[assignment]

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Renders, as rich does."""
        for segment in super().render(renderable, options):
            if not segment.control and not segment.text.isprintable():
                segment = segment._replace(text="\n".join(map(printable, segment.text.split("\n"))))
            yield segment


console = Console(soft_wrap=True)


class _Terminal(logging.StreamHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Has a reader who is gone, or a full disk, end the program."""
        if isinstance(sys.exc_info()[1], OSError):
            raise
        super().handleError(record)


class _LogFile(logging.FileHandler):
    """Appends to a file; on a full disk a line is lost, and the message on the terminal is not buried."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8")

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Leaves the report to whatever cannot do without the disk."""


def start_log(path: Path | None, is_shown: bool = True, is_stderr: bool = False) -> None:
    """Sends messages of the logger `vswin` to the terminal, and with a time to a file.

    Args:
        path: the log file, which is continued if it exists; None for none.
        is_shown: whether this process writes to the terminal at all; of several workers one does.
        is_stderr: whether standard output is kept for results, so that messages, tables and bars go to standard error.
    """
    logger.setLevel(logging.INFO)
    # Hydra switches off what other libraries, and the run of a sweep before this one, would log.
    logger.disabled = False
    # absl, which TensorFlow brings, puts a handler of its own on the root logger.
    logger.propagate = False
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    console.quiet = not is_shown
    console.set_output(is_stderr, has_log=path is not None)
    if is_shown:
        terminal = _Terminal(console.file)
        terminal.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(terminal)
    if path is not None:
        file = _LogFile(path)
        file.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S"))
        logger.addHandler(file)
