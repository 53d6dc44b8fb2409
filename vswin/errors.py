"""Errors that a user can mend, and how they reach the terminal."""

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class InputError(ValueError):
    """An error the user can mend; it names the thing, the value and the way out."""


@contextmanager
def clean_errors() -> Iterator[None]:
    """Ends the program on an `InputError` with its text alone and on Ctrl-C; other errors keep their traceback."""
    try:
        yield
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        # As shells report it: 128 + SIGINT.
        raise SystemExit(130) from None


def nearest(name: str, choices: Sequence[str]) -> str:
    """Says which names come close to a wrong one, e.g. "did you mean 'swin_base'? (choices: ...)"."""
    close = difflib.get_close_matches(name, choices, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(repr(match) for match in close)}? " if close else ""
    listed = f"(choices: {', '.join(choices)})" if len(choices) <= 12 else ""
    return (hint + listed).strip() or "see --help"
