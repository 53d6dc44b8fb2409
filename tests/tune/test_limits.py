"""Limits of control groups, as containers and Slurm set them."""

import psutil
import pytest

from vswin.tune import limits
from vswin.tune.limits import cgroup_free, free_gb


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
    monkeypatch.setattr(limits, "_OWN", tmp_path / "cgroup")
    available = psutil.virtual_memory().available / 1e9
    assert free_gb() == pytest.approx(0.9 * available, rel=0.2)
