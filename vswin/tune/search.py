"""The search for the largest number that fits: doubled until one does not, then the gap is halved."""

from collections.abc import Callable


def find_largest(fits: Callable[[int], bool], start: int, unit: int, most: int) -> int:
    """Finds the largest multiple of `unit` that fits.

    Up to 16 units the answer is exact; beyond, it is at most a sixteenth below the largest.

    Args:
        fits: tries a number; what fits, fits smaller, too. Asked once for each number.
        start: the first guess; rounded down to a multiple.
        unit: what the number must be a multiple of, >= 1.
        most: the largest that is tried, >= unit.

    Returns:
        The number; 0 if not even one unit fits.
    """
    low, high = 0, most // unit + 1  # in units: the largest that is known to fit, the smallest that is not
    guess = min(max(1, start // unit), most // unit)
    while low < high - 1 and (low == 0 or high - low > max(1, low // 16)):
        if fits(guess * unit):
            low = guess
        else:
            high = guess
        is_bounded = low > 0 and high <= most // unit
        guess = (low + high) // 2 if is_bounded or low == 0 else min(2 * low, high - 1)
    return low * unit


def find_knee(clips_per_second: dict[int, float]) -> int:
    """Finds the smallest batch that is nearly as fast as the fastest, within 5 %.

    Args:
        clips_per_second: by batch size; not empty.
    """
    best = max(clips_per_second.values())
    return min(size for size, speed in clips_per_second.items() if speed >= 0.95 * best)


def count_parts(share: int, largest: int, unit: int) -> int | None:
    """Counts the micro-batches into which a device's share of a batch has to be cut to fit.

    Args:
        share: clips of a device.
        largest: clips that fit at a time.
        unit: what each part must be a multiple of.

    Returns:
        The smallest number of equal parts; None if there is none.
    """
    for parts in range(1, share // unit + 1):
        if share % (parts * unit) == 0 and share // parts <= largest:
            return parts
    return None
