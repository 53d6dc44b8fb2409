"""Tests of vswin.data.check_files: facts of real files, and work in parallel."""

import shutil
import threading
from functools import partial
from pathlib import Path

import pytest

from vswin.data import stores
from vswin.data.check_files import FileFacts, hash_file, in_parallel, inspect_file, same_sized

inspect = partial(inspect_file, decoder="auto", timeout_sec=60)


@pytest.mark.parametrize("decode", [False, True])
def test_facts_of_a_good_file(write_video, decode):
    path = write_video("good.avi", 15, height=48, width=64)
    facts = inspect(path, decode=decode)
    assert facts[1:] == (15, 48, 64, "")
    assert facts.num_bytes > 1000


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing", "FileNotFoundError"),
        ("empty", "empty (0 bytes)"),
        ("text", "not a video"),
        ("folder", "not a video (a folder)"),
        ("audio", "not a video (sound only)"),
        ("truncated avi", "truncated"),
        ("truncated mp4", "truncated"),
        ("one frame avi", "one frame"),
        ("unknown codec", "unknown codec"),
    ],
)
def test_reasons_of_bad_files(bad_files, name, reason):
    facts = inspect(bad_files[name], decode=False)
    assert facts.reason.startswith(reason)
    assert facts[1:4] == (0, 0, 0)


def test_damage_after_the_beginning_is_found_by_decoding_everything(tmp_path, write_video):
    content = bytearray(Path(write_video("damaged.avi", 40)).read_bytes())
    place = content.index(b"movi")
    for number in range(40):
        place = content.index(b"00dc", place)
        length = int.from_bytes(content[place + 4 : place + 8], "little")
        if number >= 20:
            content[place + 8 : place + 8 + length] = bytes(length)
        place += 8 + length
    path = tmp_path / "damaged.avi"
    path.write_bytes(content)
    assert inspect(str(path), decode=False)[1:] == (40, 48, 64, "")
    assert inspect(str(path), decode=True).reason == "truncated (20 of 40 frames are there)"


def test_a_decoder_that_fails_otherwise_does_not_end_the_check(write_video, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("no memory")

    monkeypatch.setattr(stores, "VideoReader", fail)
    assert inspect(write_video("good.avi", 15), decode=False).reason == "RuntimeError: no memory"


def test_the_time_limit_is_for_beginnings_alone(write_video):
    path = write_video("good.avi", 15)
    assert "too slow" in inspect_file(path, "auto", 1e-9, decode=False).reason
    assert inspect_file(path, "auto", 1e-9, decode=True).reason == ""


def test_hashes_are_of_content(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    shutil.copy(tmp_path / "a", tmp_path / "b")
    (tmp_path / "c").write_bytes(b"x" * 2_999_999 + b"y")
    digests = [hash_file(str(tmp_path / name)) for name in "abc"]
    assert digests[0] == digests[1] != digests[2]
    assert hash_file(str(tmp_path / "gone")) == str(tmp_path / "gone")


def test_only_usable_files_of_equal_size_are_compared():
    facts = {"a": FileFacts(5), "b": FileFacts(6), "c": FileFacts(5), "d": FileFacts(6, reason="broken")}
    assert same_sized(facts) == ["a", "c"]


def test_work_goes_on_in_parallel_and_every_item_is_done_once():
    barrier = threading.Barrier(2, timeout=20)
    results = dict(in_parallel(lambda number: barrier.wait() + number, range(2)))
    assert sorted(results) == [0, 1]
    assert dict(in_parallel(lambda number: number * number, range(1000))) == {n: n * n for n in range(1000)}
    assert list(in_parallel(str, [])) == []


def test_leaving_early_ends_the_work():
    started = []
    results = in_parallel(started.append, range(100_000))
    next(results)
    results.close()
    assert len(started) < 1000


def test_an_error_in_the_work_is_raised():
    with pytest.raises(ZeroDivisionError):
        list(in_parallel(lambda number: 1 // number, [1, 0]))
