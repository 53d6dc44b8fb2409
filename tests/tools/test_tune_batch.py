"""The search for the largest batch with simulated limits, and the memory limits of control groups."""

import psutil
import pytest

from vswin.tools.tune_batch import count_parts, find_largest, free_gb


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


@pytest.mark.parametrize(
    ("batch_size", "largest", "unit", "parts"),
    [(16, 16, 1, 1), (16, 5, 1, 4), (16, 8, 2, 2), (6, 3, 2, 3), (7, 3, 1, 7), (6, 1, 2, None)],
)
def test_a_batch_is_cut_into_the_fewest_equal_parts_that_fit(batch_size, largest, unit, parts):
    assert count_parts(batch_size, largest, unit) == parts


def test_every_group_above_a_process_counts_and_caches_give_way(tmp_path):
    for folder, limit, used, cached in (("job", 4000, 1000, 200), ("job/step", "max", 900, 0)):
        (tmp_path / "groups" / folder).mkdir(parents=True)
        (tmp_path / "groups" / folder / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "groups" / folder / "memory.current").write_text(f"{used}\n")
        (tmp_path / "groups" / folder / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\n")
    own = tmp_path / "cgroup"
    # Without groups, the memory of the machine counts.
    assert free_gb(tmp_path / "groups", own) == pytest.approx(0.9 * psutil.virtual_memory().available / 1e9, rel=0.2)
    own.write_text("0::/job/step\n")
    assert free_gb(tmp_path / "groups", own) == pytest.approx(0.9 * 3200 / 1e9)
