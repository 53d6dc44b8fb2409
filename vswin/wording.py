"""How numbers of things, and names that come from outside, are written."""


def count_of(number: float, noun: str) -> str:
    """Writes how many there are, e.g. "1 epoch", "0.5 epochs", "3,200 videos" or "8 classes"."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}" if isinstance(number, int) else f"{number:g} {noun}{ending}"


def printable(text: str) -> str:
    """Spells out what a terminal would obey instead of show, and what is no text, as file names may hold."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
