"""Tables, paragraphs and progress bars that fit a window.

A table that would break its numbers becomes a paragraph for each row.
"""

import os
import textwrap
from collections.abc import Collection, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from vswin.wording import printable

# In a window of fewer columns progress is shown without a bar and the time that remains: its counts stay whole.
NARROW = 60

_GAP = 2
_INDENT = 2
# Text in a column is folded between words, down to so many columns.
_NARROWEST_TEXT = 14
_NARROWEST_WINDOW = 20
_UNLIMITED = 100_000


def window_width(console: Console) -> int:
    """Tells how many columns there are; a pipe and a file have no end, unless COLUMNS sets one."""
    is_endless = console.soft_wrap and not console.is_terminal and "COLUMNS" not in os.environ
    return _UNLIMITED if is_endless else max(console.width, _NARROWEST_WINDOW)


def print_table(console: Console, lines: Sequence[Sequence[str]], texts: Collection[int] = (0,)) -> None:
    """Prints a table whose numbers stay whole; where they have no room, each row as a paragraph.

    Args:
        console: Where to.
        lines: Headings, then rows; a row may end early.
        texts: Columns of words, which stand to the left and may be folded; all others stand to the right.
    """
    lines = [[printable(cell) for cell in line] for line in lines]
    columns = [[line[i] if i < len(line) else "" for line in lines] for i in range(len(lines[0]))]
    widths = [max(map(cell_len, column)) for column in columns]
    least = [min(width, _NARROWEST_TEXT) if i in texts else width for i, width in enumerate(widths)]
    gaps = _GAP * (len(widths) - 1)
    width = window_width(console)
    if sum(least) + gaps <= width:
        _print_rows(console, columns, texts, min(sum(widths) + gaps, width))
    else:
        _print_paragraphs(console, lines)


def say(
    console: Console, text: str, style: str = "", indent: int = 0, hanging: int = 0, widest: int = _UNLIMITED
) -> None:
    """Prints a paragraph; names and paths that are longer than a line stay whole.

    Args:
        console: Where to.
        text: Plain text; what a terminal would obey is spelt out.
        style: Of all of it.
        indent: Blanks before each line.
        hanging: Blanks more before all lines but the first.
        widest: Columns to take at most.
    """
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


def make_progress_bar(console: Console, unit: str) -> Progress:
    """Makes a bar for a terminal; elsewhere it shows nothing, and its user prints lines instead.

    Args:
        console: Where to.
        unit: What is counted, e.g. "steps". Tasks have a field `note`, a text to the right of the count.
    """
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


def _print_rows(console: Console, columns: Sequence[Sequence[str]], texts: Collection[int], width: int) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for i, (heading, *_) in enumerate(columns):
        if i in texts:
            table.add_column(Text(heading), overflow="fold")
        else:
            table.add_column(Text(heading), justify="right", no_wrap=True)
    for cells in list(zip(*columns, strict=True))[1:]:
        table.add_row(*map(Text, cells))
    for segments in console.render_lines(table, console.options.update(width=width), pad=False):
        line = Text.assemble(*((segment.text, segment.style or "") for segment in segments))
        line.rstrip()
        console.print(line, soft_wrap=True)


def _print_paragraphs(console: Console, lines: Sequence[Sequence[str]]) -> None:
    """Prints the first cell of each row, and below it the others that hold something, each after its heading."""
    headings, *rows = lines
    if headings[0]:
        say(console, headings[0], style="bold")
    for row in rows:
        say(console, row[0])
        for heading, cell in zip(headings[1:], row[1:], strict=False):
            if cell:
                say(console, f"{heading}: {cell}" if heading else cell, indent=_INDENT, hanging=_INDENT)
