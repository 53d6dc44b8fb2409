"""Annotation files in JSON."""

import json
import re
from pathlib import Path
from typing import Any

from vswin.errors import InputError

# A name in a list of paths may begin with a bracket, too.
_BEGINNING = re.compile(r"\s*(\{\s*[\"}]|\[\s*[{\]])")


def is_json(text: str) -> bool:
    """Tells by its beginning whether a text is a JSON object or array, whatever its file is called."""
    return _BEGINNING.match(text) is not None


def read_json(path: Path, text: str) -> Any:
    """Parses JSON.

    Args:
        path: the file, for the message.
        text: its content.

    Raises:
        InputError: if it is not JSON, e.g. as the file was cut off.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # also of numbers, and of brackets, by the thousand
        raise InputError(f"The list {path} cannot be read: it is no whole JSON file ({error})") from error
