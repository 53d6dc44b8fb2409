"""The search for the largest batch with simulated limits, and the memory limits of control groups."""

import psutil
import pytest

from vswin.cli import batch
from vswin.tools.tune_batch import cgroup_free, count_parts, find_knee, find_largest, free_gb


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


def write_group(folder, limit, used, cached):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\n")


def test_every_group_above_a_process_counts_and_caches_give_way(tmp_path):
    write_group(tmp_path / "groups" / "job", 4000, 1000, 200)
    write_group(tmp_path / "groups" / "job" / "step", "max", 900, 0)
    own = tmp_path / "cgroup"
    own.write_text("0::/job/step\n")
    assert cgroup_free(tmp_path / "groups", own) == [3200]


def test_the_first_version_of_control_groups_is_read_too(tmp_path):
    folder = tmp_path / "memory" / "job"
    folder.mkdir(parents=True)
    for name, text in (("limit_in_bytes", "5000"), ("usage_in_bytes", "2000"), ("stat", "total_inactive_file 100")):
        (folder / f"memory.{name}").write_text(text + "\n")
    own = tmp_path / "cgroup"
    own.write_text("7:cpu,cpuacct:/job\n4:memory:/job\n")
    assert cgroup_free(tmp_path, own) == [3100]


def test_without_groups_the_memory_of_the_machine_counts(tmp_path, monkeypatch):
    assert cgroup_free(tmp_path, tmp_path / "cgroup") == []
    monkeypatch.setattr(batch, "_OWN_CGROUP", tmp_path / "cgroup")
    available = psutil.virtual_memory().available / 1e9
    assert free_gb() == pytest.approx(0.9 * available, rel=0.2)
