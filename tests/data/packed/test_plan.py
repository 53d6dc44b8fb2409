import os
from pathlib import Path

import pytest

from vswin.data.packed.plan import make_plan
from vswin.data.records import VideoRecord
from vswin.errors import InputError


@pytest.fixture
def records(tmp_path: Path) -> list[VideoRecord]:
    """Makes ten files of 100 bytes."""
    for number in range(10):
        (tmp_path / f"{number}.avi").write_bytes(bytes(100))
    return [VideoRecord(str(tmp_path / f"{number}.avi"), number % 2) for number in (3, 1, 4, 0, 5, 9, 2, 6, 8, 7)]


def test_shards_hold_the_list_in_its_order(records, tmp_path: Path) -> None:
    plan = make_plan({"train": records[:7], "val": records[7:]}, str(tmp_path), 3)
    assert [(shard.split, shard.number, shard.num_shards, len(shard.entries)) for shard in plan.shards] == [
        ("train", 0, 3, 2),
        ("train", 1, 3, 3),
        ("train", 2, 3, 2),
        ("val", 0, 1, 3),
    ]
    packed = [entry for shard in plan.shards for entry in shard.entries]
    assert [(entry.file, entry.label) for entry in packed] == records
    assert [entry.name for entry in packed] == [os.path.basename(path) for path, _ in records]
    assert [entry.number for entry in packed] == [*range(7), *range(3)]
    assert (plan.num_videos, plan.num_bytes) == (10, 1000)


def test_plan_of_evaluation_videos_alone(records, tmp_path: Path) -> None:
    plan = make_plan({"train": [], "val": records}, str(tmp_path), 5)
    assert [(shard.split, shard.num_shards, len(shard.entries)) for shard in plan.shards] == [("val", 5, 2)] * 5


def test_every_video_and_option_counts_in_the_digest(records, tmp_path: Path) -> None:
    def digest(videos: list[VideoRecord], num_shards: int = 2, options: str = "x") -> str:
        return make_plan({"train": videos}, str(tmp_path), num_shards).digest([options])

    first = digest(records)
    assert digest(records) == first
    others = [digest(records[::-1]), digest(records[:-1]), digest(records, 3), digest(records, options="y")]
    (tmp_path / "3.avi").write_bytes(bytes(101))
    assert len({first, *others, digest(records)}) == 6


def test_names_outside_the_root_stay_distinct(records, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    plan = make_plan({"train": records}, str(tmp_path / "root"), 1)
    assert plan.shards[0].entries[0].name == "../3.avi"


def test_too_few_or_unreadable_videos_are_refused(records, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="shards=11, but there are 10 videos"):
        make_plan({"train": records}, str(tmp_path), 11)
    with pytest.raises(InputError, match="no videos to pack"):
        make_plan({"train": [], "val": []}, str(tmp_path), 1)
    (tmp_path / "0.avi").unlink()
    (tmp_path / "0.avi").mkdir()
    records.append(VideoRecord(str(tmp_path / "gone.avi"), 0))
    with pytest.raises(
        InputError, match=r"2 of the 11 videos are no files that can be read, e.g. .*0.avi; `vswin data"
    ):
        make_plan({"train": records}, str(tmp_path), 1)
