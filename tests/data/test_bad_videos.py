import csv
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vswin.data.bad_videos import BadVideos


def test_files_and_causes_are_counted_whatever_the_details() -> None:
    bad = BadVideos()
    assert (len(bad), bad.rows(), bad.describe_causes()) == (0, [], "")
    for name, detail in (("b.mp4", "4 of 9 frames"), ("a.mp4", "3 of 9 frames")):
        bad.add(name, "truncated", detail)
    for name, cause in (("c.mp4", "empty"), ("d.mp4", "empty"), ("d.mp4", "truncated")):
        bad.add(name, cause)
    bad.add("e.mp4", "decoder crashed", "SIGSEGV")
    assert len(bad) == 5
    assert bad.describe_causes() == "3 truncated, 1 decoder crashed, 1 empty"
    assert bad.rows()[0] == ("a.mp4", "truncated (3 of 9 frames)", 1)
    assert bad.rows()[3] == ("d.mp4", "truncated", 2)


def test_threads_lose_nothing() -> None:
    bad = BadVideos()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: bad.add(f"{number % 10}.mp4", "empty"), range(2000)))
    assert [times for _, _, times in bad.rows()] == [200] * 10


def test_list_is_written_whole_with_readable_names_and_leaves_nothing_else(tmp_path: Path) -> None:
    bad = BadVideos()
    bad.add('odd, "name"\n.mp4', "not a video (é)")
    bad.add(os.fsdecode(b"caf\xe9.mp4"), "unusable name")
    target = tmp_path / "bad_videos.csv"
    target.write_text("something older and longer than the new list, which must go away entirely\n" * 9)
    bad.write(target)
    with target.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["path", "cause", "times"],
        ["caf\\udce9.mp4", "unusable name", "1"],
        ['odd, "name"\n.mp4', "not a video (é)", "1"],
    ]
    assert list(tmp_path.iterdir()) == [target]


def test_failed_write_keeps_the_old_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "bad_videos.csv"
    target.write_text("old")
    monkeypatch.setattr(BadVideos, "rows", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        BadVideos().write(target)
    assert target.read_text() == "old"
