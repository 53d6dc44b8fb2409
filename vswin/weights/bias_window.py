"""Which attention window a bias table belongs to: the table alone has the product of three numbers."""

import itertools
import math
from collections.abc import Iterator

import numpy as np

from vswin.zoo import SIZES, Triple


def find_window(rows: int, is_2d: bool, index: np.ndarray | None) -> tuple[tuple[Triple, ...], Triple | None]:
    """Finds the windows that a bias table of so many rows may belong to.

    Args:
        rows: of the table, (2t-1)*(2h-1)*(2w-1).
        is_2d: whether the network is one for images; t is 1 then.
        index: int [N, N], the `relative_position_index` that goes with the table, which decides.

    Returns:
        All windows (t, h, w) in question (without an index only those with h == w, and h above 1); and the one that
        it is, None where nothing decides: neither the index, nor that just one belongs to a known size.
    """
    windows: list[Triple] = []
    if index is not None and index.ndim == 2:
        windows = [window for window in _windows_of(len(index), rows, is_2d) if _has_first_row(index, window)]
    if windows:
        return tuple(windows), windows[0] if len(windows) == 1 else None
    for side in range(2, (math.isqrt(rows) + 1) // 2 + 1):
        times, rest = divmod(rows, (2 * side - 1) ** 2)
        if rest == 0 and times % 2 and not (is_2d and times > 1):
            windows.append(((times + 1) // 2, side, side))
    known = {size.window_size for size in SIZES.values()}
    decided = windows if is_2d else [window for window in windows if window in known]
    return tuple(windows), decided[0] if len(decided) == 1 else None


def _windows_of(num_tokens: int, rows: int, is_2d: bool) -> Iterator[Triple]:
    """Yields the windows of so many tokens whose bias tables have so many rows."""
    divisors = [n for n in range(1, num_tokens + 1) if num_tokens % n == 0]
    for t, h in itertools.product((1,) if is_2d else divisors, divisors):
        w = num_tokens // (t * h)
        if t * h * w == num_tokens and (2 * t - 1) * (2 * h - 1) * (2 * w - 1) == rows:
            yield (t, h, w)


def _has_first_row(index: np.ndarray, window: Triple) -> bool:
    """Says whether the first row of a position index is that of a window."""
    t, h, w = window
    rows = np.arange(t)[:, None] * (2 * h - 1) + np.arange(h)  # [t, h]
    distance = (rows[:, :, None] * (2 * w - 1) + np.arange(w)).reshape(-1)  # [N]
    return np.array_equal(index[0], index[0, 0] - distance) and index[0, 0] == distance[-1]
