"""Define the one line of an annotation list that the whole data pipeline shares."""

from __future__ import annotations

from typing import NamedTuple


class VideoRecord(NamedTuple):
    """Name one labelled video of a data set.

    Attributes:
        path: File of the video, absolute or relative to the current directory.
        label: Class index, 0 .. K-1.
    """

    path: str
    label: int
