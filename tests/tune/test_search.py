"""The search for the largest batch, against limits made up."""

import pytest

from vswin.tune.search import count_parts, find_knee, find_largest


@pytest.mark.parametrize("start", [1, 4, 64])
@pytest.mark.parametrize("limit", [0, 1, 2, 3, 13, 16, 31])
def test_the_largest_that_fits_is_found_exactly(limit, start):
    asked = []

    def fits(number):
        asked.append(number)
        return number <= limit

    assert find_largest(fits, start, 1, 64) == limit
    assert len(set(asked)) == len(asked)
    assert limit + 1 in asked


def test_a_large_batch_is_found_within_a_sixteenth():
    found = find_largest(lambda number: number <= 1000, 8, 1, 4096)
    assert 1000 * 15 / 16 <= found <= 1000


def test_sizes_are_multiples_of_the_unit_and_at_most_the_most():
    asked = []
    assert find_largest(lambda number: asked.append(number) or number <= 9, 1, 2, 64) == 8
    assert all(number % 2 == 0 for number in asked)
    assert find_largest(lambda number: True, 1, 2, 31) == 30


def test_the_knee_is_the_smallest_that_is_nearly_as_fast():
    assert find_knee({1: 5.0, 2: 9.0, 4: 9.6, 8: 10.0}) == 4
    assert find_knee({3: 1.0}) == 3


@pytest.mark.parametrize(
    ("share", "largest", "unit", "parts"),
    [(16, 16, 1, 1), (16, 5, 1, 4), (16, 8, 2, 2), (6, 3, 2, 3), (7, 3, 1, 7), (6, 1, 2, None)],
)
def test_a_share_is_cut_into_the_fewest_equal_parts_that_fit(share, largest, unit, parts):
    assert count_parts(share, largest, unit) == parts
