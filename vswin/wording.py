"""How numbers of things, and names that come from outside, are written."""

import re

_MOST_CHARS = 2000
# A message's own further lines are indented; other line breaks come from a name in it.
_LINE_BREAK = re.compile(r"\n(?=  )")


def count_of(number: float, noun: str) -> str:
    """Writes how many there are, e.g. "1 epoch", "0.5 epochs", "3,200 videos" or "8 classes"."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}" if isinstance(number, int) else f"{number:g} {noun}{ending}"


def printable(text: str) -> str:
    """Spells out what a terminal would obey instead of show, and what is no text, as file names may hold.

    Of a text that is longer than any name, the middle is left out.
    """
    text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    half = _MOST_CHARS // 2
    return text if len(text) <= _MOST_CHARS else f"{text[:half]} ... {text[-half:]}"


def printable_lines(text: str) -> str:
    """Does the same for each line of a message, whose own further lines are indented."""
    return "\n".join(map(printable, _LINE_BREAK.split(text)))
