"""Define the record of a labelled video that the whole data pipeline shares."""

from __future__ import annotations

from typing import NamedTuple


class VideoRecord(NamedTuple):
    """One labelled video of a data set.

    Attributes:
        path: Video file, absolute or relative to the current directory.
        label: Class index, 0 .. K-1.
    """

    path: str
    label: int
