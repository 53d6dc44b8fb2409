from pathlib import Path

import pytest

from vswin.data.packed.plan import Plan, make_plan
from vswin.data.packed.verify import verify_packed
from vswin.data.packed.write import write_shards
from vswin.data.records import VideoRecord
from vswin.errors import InputError

CLASSES = ["bright", "dark"]


@pytest.fixture
def records(small_videos: Path) -> list[VideoRecord]:
    return [VideoRecord(str(path), 1) for path in sorted((small_videos / "dark").iterdir())]


@pytest.fixture(params=["tfrecord", "array_record"])
def written(request: pytest.FixtureRequest, records, small_videos: Path, tmp_path: Path) -> tuple[Plan, Path]:
    plan = make_plan({"train": records[:4], "val": records[4:]}, str(small_videos), 2)
    (tmp_path / "work").mkdir()
    write_shards(plan, tmp_path / "work", CLASSES, request.param, None, 1, lambda count: None)
    return plan, tmp_path / "work"


def test_rows_say_where_each_video_is(written, records) -> None:
    plan, folder = written
    counts = []
    rows = verify_packed(plan, folder, None, 2, counts.append)
    assert [(row.split, row.path, row.label, row.shard) for row in rows] == [
        ("train", "dark/0.avi", 1, 0),
        ("train", "dark/1.avi", 1, 0),
        ("train", "dark/2.avi", 1, 1),
        ("train", "dark/3.avi", 1, 1),
        ("val", "dark/4.avi", 1, 0),
        ("val", "dark/5.avi", 1, 0),
    ]
    assert [row.num_bytes for row in rows] == [Path(record.path).stat().st_size for record in records]
    assert sum(counts) == 6


def test_changed_video_is_found_and_its_file_removed(written, records) -> None:
    plan, folder = written
    content = bytearray(Path(records[2].path).read_bytes())
    content[-1] ^= 1
    Path(records[2].path).write_bytes(content)
    with pytest.raises(InputError, match=r"-00001-of-00002 is not what was to be packed: .*2.avi has .* they differ"):
        verify_packed(plan, folder, None, 1, lambda count: None)
    assert not list(folder.glob("*-train.*-00001-of-00002"))
    assert len(list(folder.glob("*-train.*-00000-of-00002"))) == 1


def test_wrong_label_and_missing_videos_are_found(written, records, small_videos: Path) -> None:
    _, folder = written
    relabelled = [VideoRecord(path, 0) for path, _ in records]
    for path in folder.glob("*-train.*"):
        path.rename(path.with_suffix(".hidden" + path.suffix))
    plan = make_plan({"val": records[4:], "train": records[:4]}, str(small_videos), 2)
    with pytest.raises(InputError, match="4 videos are missing from"):
        verify_packed(plan, folder, None, 1, lambda count: None)
    plan = make_plan({"val": relabelled[4:]}, str(small_videos), 2)
    with pytest.raises(InputError, match=r"dark/4.avi has the label 1, not 0"):
        verify_packed(plan, folder, None, 1, lambda count: None)


def test_re_encoded_videos_must_have_all_their_frames(records, small_videos: Path, tmp_path: Path) -> None:
    plan = make_plan({"train": records}, str(small_videos), 1)
    write_shards(plan, tmp_path, CLASSES, "tfrecord", 20, 1, lambda count: None)
    assert len(verify_packed(plan, tmp_path, 20, 1, lambda count: None)) == 6
    with pytest.raises(InputError, match="they differ"):
        verify_packed(plan, tmp_path, None, 1, lambda count: None)


def test_re_encoded_videos_with_fewer_frames_are_found(records, small_videos: Path, tmp_path: Path, ffmpeg) -> None:
    plan = make_plan({"train": records}, str(small_videos), 1)
    write_shards(plan, tmp_path, CLASSES, "tfrecord", 20, 1, lambda count: None)
    path = records[3].path
    longer = tmp_path / "longer.avi"
    ffmpeg("-stream_loop", "1", "-i", path, "-c", "copy", str(longer))
    longer.replace(path)
    with pytest.raises(InputError, match=r"3.avi has 24 frames, packed are 12"):
        verify_packed(plan, tmp_path, 20, 1, lambda count: None)
