"""All output that a person reads, with control characters in names escaped, on a terminal, in a pipe and in a log."""

import errno
import logging
import os
import re
import shlex
import shutil
import stat
import sys
import textwrap
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

import rich.console
from rich.cells import cell_len
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from vswin.errors import drop_output

if TYPE_CHECKING:
    from rich.progress import Progress

# In a narrower window, progress has neither bar nor remaining time, so that its counts stay whole.
NARROW = 60
_NARROWEST_WINDOW, _NARROWEST_TEXT = 20, 14
_UNLIMITED = 100_000
_MOST_CHARS = 2000
# Lines of a message after its first are indented; other line breaks come from a name in it.
_LINE_BREAK = re.compile(r"\n(?=  )")

logger = logging.getLogger("vswin")


def count_of(number: float, noun: str) -> str:
    """Writes a count with its noun, e.g. "1 epoch", "0.5 epochs", "3,200 videos" or "8 classes"."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}" if isinstance(number, int) else f"{number:g} {noun}{ending}"


def program(command: str) -> str:
    """Writes how to call "train" or "evaluate" from where the user is: as this process was called, or with `vswin`."""
    for index, word in enumerate(sys.orig_argv):
        path = Path(word)
        if path.name in ("train.py", "evaluate.py"):
            return shlex.join([*sys.orig_argv[:index], str(path.with_name(f"{command}.py"))])
        if path.name == "vswin" and shutil.which("vswin") != word:
            return shlex.join([word, command])
    return f"vswin {command}"


def printable(text: str) -> str:
    """Escapes control characters, and leaves out the middle of a very long text."""
    text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    half = _MOST_CHARS // 2
    return text if len(text) <= _MOST_CHARS else f"{text[:half]} ... {text[-half:]}"


def printable_lines(text: str) -> str:
    """Makes each line of a message printable."""
    return "\n".join(map(printable, _LINE_BREAK.split(text)))


def _spell_out(record: logging.LogRecord) -> bool:
    """Makes a message, or each line of one, printable."""
    lines = record.msg if isinstance(record.msg, list) else [record.getMessage()]
    record.msg, record.args = "\n".join(map(printable_lines, lines)), ()
    return True


logger.addFilter(_spell_out)


class _Output:
    """Standard output or error; with a log, it goes silent once the terminal or the reader is gone."""

    def __init__(self, is_stderr: bool, has_log: bool) -> None:
        self._is_stderr, self._has_log = is_stderr, has_log

    def write(self, text: str) -> int:
        return self._try(lambda stream: stream.write(text)) or 0

    def flush(self) -> None:
        self._try(lambda stream: stream.flush())

    def __getattr__(self, name: str) -> Any:
        """Takes everything else, e.g. `isatty` and `encoding`, from the stream."""
        return getattr(self._stream, name)

    @property
    def _stream(self) -> TextIO:
        stream = sys.stderr if self._is_stderr else sys.stdout
        # While a bar is shown, rich sends prints through the console, which would come back here.
        return getattr(stream, "rich_proxied_file", stream)

    def _try(self, use: Callable[[TextIO], Any]) -> Any:
        stream = self._stream
        try:
            return use(stream)
        except OSError as error:
            # A closed terminal gives the error of a lost disk.
            is_lost = error.errno == errno.EIO and stat.S_ISCHR(os.fstat(stream.fileno()).st_mode)
            if not is_lost and not self._has_log:
                raise
            drop_output(stream)


class Console(rich.console.Console):
    """Prints tables, paragraphs and bars with control characters escaped."""

    def __init__(self, is_stderr: bool = False, **options: Any) -> None:
        super().__init__(highlight=False, **options)
        self.set_output(is_stderr)

    def set_output(self, is_stderr: bool, has_log: bool = False) -> None:
        """Chooses standard output or error, and whether a log continues after their reader is gone."""
        self.file = _Output(is_stderr, has_log)  # type: ignore[assignment]

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Renders as rich does, with control characters escaped."""
        for segment in super().render(renderable, options):
            if not segment.control and not segment.text.isprintable():
                segment = segment._replace(text="\n".join(map(printable, segment.text.split("\n"))))
            yield segment


console = Console(soft_wrap=True)


class _Terminal(logging.StreamHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Ends the program if the reader is gone or the disk is full."""
        if isinstance(sys.exc_info()[1], OSError):
            raise
        super().handleError(record)


class _LogFile(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Drops the line on a full disk, so that the message on the terminal is not buried."""


def start_log(path: Path | None, is_shown: bool = True, is_stderr: bool = False) -> None:
    """Sends messages of the logger `vswin` to the terminal, if `is_shown`, and, with a time, to the end of a file.

    With `is_stderr`, messages, tables and bars go to standard error, to keep standard output for results.
    """
    logger.setLevel(logging.INFO)
    # Hydra disables the loggers of other libraries and of the previous run of a sweep.
    logger.disabled = False
    # absl, which TensorFlow imports, adds a handler to the root logger.
    logger.propagate = False
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    console.quiet = not is_shown
    console.set_output(is_stderr, has_log=path is not None)
    if is_shown:
        logger.addHandler(_Terminal(console.file))
    if path is not None:
        file = _LogFile(path, encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S"))
        logger.addHandler(file)


def window_width(console: rich.console.Console) -> int:
    """Gives the number of columns, which is unlimited in a pipe or a file unless COLUMNS is set."""
    is_endless = console.soft_wrap and not console.is_terminal and "COLUMNS" not in os.environ
    return _UNLIMITED if is_endless else max(console.width, _NARROWEST_WINDOW)


def print_table(console: rich.console.Console, lines: Sequence[Sequence[str]], texts: Collection[int] = (0,)) -> None:
    """Prints headings and rows; a row may end early.

    The columns `texts` are aligned left and may be folded; all others are numbers, which are never cut, even if the
    table is then wider than the window.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    least = 0
    for i, cells in enumerate(zip_longest(*lines, fillvalue="")):
        is_text, width = i in texts, max(cell_len(printable(cell)) for cell in cells)
        justify: Literal["left", "right"] = "left" if is_text else "right"
        table.add_column(Text(printable(cells[0])), justify=justify, overflow="fold", no_wrap=not is_text)
        least += (min(width, _NARROWEST_TEXT) if is_text else width) + 2
    for line in lines[1:]:
        table.add_row(*(Text(printable(cell)) for cell in line))
    options = console.options.update(width=max(window_width(console), least))
    for segments in console.render_lines(table, options, pad=False):
        text = Text.assemble(*((segment.text, segment.style or "") for segment in segments))
        text.rstrip()
        console.print(text, soft_wrap=True)


def say(
    console: rich.console.Console,
    text: str,
    style: str = "",
    indent: int = 0,
    hanging: int = 0,
    widest: int = _UNLIMITED,
) -> None:
    """Prints a paragraph with a hanging indent; names and paths that are longer than a line stay whole."""
    lines = textwrap.wrap(
        printable(text),
        min(window_width(console), widest),
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + hanging),
        break_long_words=False,
        break_on_hyphens=False,
    )
    for line in lines:
        console.print(Text(line, style=style), soft_wrap=True)


def make_progress_bar(console: rich.console.Console, unit: str) -> "Progress":
    """Makes a bar for a terminal that counts e.g. "steps"; elsewhere it shows nothing, and the caller prints lines.

    Its tasks have a field `note`, a text to the right of the count.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    is_wide = console.width >= NARROW
    return Progress(
        TextColumn("{task.description}"),
        *([BarColumn()] if is_wide else []),
        MofNCompleteColumn(),
        TextColumn(unit + "  {task.fields[note]}"),
        *([TimeRemainingColumn()] if is_wide else []),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
