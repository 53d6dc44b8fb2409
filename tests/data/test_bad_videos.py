import csv
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vswin.data.bad_videos import BadVideos


def test_counts_files_once_and_remembers_how_often() -> None:
    bad = BadVideos()
    assert len(bad) == 0
    assert bad.rows() == []
    bad.add("b.mp4", "empty")
    bad.add("a.mp4", "missing")
    bad.add("b.mp4", "truncated")
    assert len(bad) == 2
    assert bad.rows() == [("a.mp4", "missing", 1), ("b.mp4", "truncated", 2)]


def test_causes_are_counted_whatever_the_details() -> None:
    bad = BadVideos()
    assert bad.describe_causes() == ""
    for name, detail in (("a.mp4", "3 of 9 frames"), ("b.mp4", "4 of 9 frames")):
        bad.add(name, "truncated", detail)
    bad.add("c.mp4", "empty")
    bad.add("d.mp4", "empty")
    bad.add("d.mp4", "truncated")
    bad.add("e.mp4", "decoder crashed", "SIGSEGV")
    assert bad.describe_causes() == "3 truncated, 1 decoder crashed, 1 empty"
    assert bad.rows()[0] == ("a.mp4", "truncated (3 of 9 frames)", 1)


def test_threads_lose_nothing() -> None:
    bad = BadVideos()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: bad.add(f"{number % 10}.mp4", "empty"), range(2000)))
    assert [times for _, _, times in bad.rows()] == [200] * 10


def test_list_is_written_whole_and_leaves_nothing_else(tmp_path: Path) -> None:
    bad = BadVideos()
    bad.add('odd, "name"\n.mp4', "not a video (é)")
    target = tmp_path / "bad_videos.csv"
    target.write_text("something older and longer than the new list, which must go away entirely\n" * 9)
    bad.write(target)
    with target.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows == [["path", "cause", "times"], ['odd, "name"\n.mp4', "not a video (é)", "1"]]
    assert list(tmp_path.iterdir()) == [target]


def test_names_that_are_not_utf8_are_listed_readably(tmp_path: Path) -> None:
    bad = BadVideos()
    bad.add(os.fsdecode(b"caf\xe9.mp4"), "unusable name")
    bad.write(tmp_path / "bad_videos.csv")
    assert "caf\\udce9.mp4,unusable name,1" in (tmp_path / "bad_videos.csv").read_text(encoding="utf-8")


def test_failed_write_keeps_the_old_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "bad_videos.csv"
    target.write_text("old")
    monkeypatch.setattr(BadVideos, "rows", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        BadVideos().write(target)
    assert target.read_text() == "old"
