import json
import time
from pathlib import Path

import pytest

from vswin.data.packed.contents import (
    Description,
    PackedVideo,
    hash_list,
    is_packed,
    read_description,
    read_videos,
    shard_name,
    write_description,
    write_videos,
)
from vswin.errors import InputError

DESCRIPTION = Description(
    dataset="folder",
    split=1,
    root="videos",
    class_names=["a", "b, with a comma"],
    file_format="tfrecord",
    num_shards={"train": 2, "val": 1},
    short_side=None,
    encoding={},
    list_sha256="0" * 64,
    videos_sha256="1" * 64,
    versions={"vswin": "0"},
    date="2026-01-01T00:00:00+00:00",
)
VIDEOS = [
    PackedVideo("train", 'a/odd, "name"\u00e9.avi', 0, 1, 2**40, 5, "ab" * 32),
    PackedVideo("train", "a/bytes\udcff.avi", 1, 0, 0, 6, "cd" * 32),
    PackedVideo("val", "../elsewhere/new\u2028line.avi", 1, 0, 7, 8, "ef" * 32),
]


def test_description_comes_back(tmp_path: Path) -> None:
    assert not is_packed(tmp_path)
    write_description(tmp_path, DESCRIPTION)
    assert is_packed(tmp_path)
    assert read_description(tmp_path) == DESCRIPTION


def test_videos_come_back_in_their_order_whatever_they_are_called(tmp_path: Path) -> None:
    assert read_videos(tmp_path, write_videos(tmp_path, VIDEOS)) == VIDEOS


def test_changed_files_are_noticed(tmp_path: Path) -> None:
    digest = write_videos(tmp_path, VIDEOS)
    with (tmp_path / "videos.csv").open("a") as file:
        file.write("train,more.avi,0,0,0,0,0\n")
    with pytest.raises(InputError, match=r"videos.csv is not the one that was packed"):
        read_videos(tmp_path, digest)
    (tmp_path / "videos.csv").unlink()
    with pytest.raises(InputError, match=r"videos.csv cannot be read .*not whole"):
        read_videos(tmp_path, digest)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": 1}'])
def test_damaged_description_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "vswin.json").write_text(text)
    with pytest.raises(InputError, match=r"vswin.json cannot be read .*pack the data anew"):
        read_description(tmp_path)


def test_newer_format_is_refused(tmp_path: Path) -> None:
    write_description(tmp_path, DESCRIPTION)
    values = json.loads((tmp_path / "vswin.json").read_text())
    (tmp_path / "vswin.json").write_text(json.dumps({**values, "format": 2}))
    with pytest.raises(InputError, match="has format 2, this vswin reads format 1"):
        read_description(tmp_path)


def test_list_hash_does_not_depend_on_the_order() -> None:
    entries = [("a.avi", 0), ("b.avi", 1)]
    assert hash_list(entries) == hash_list(entries[::-1]) != hash_list([("a.avi", 1), ("b.avi", 0)])


def test_files_are_named_as_tfds_does() -> None:
    assert shard_name("val", 3, 16, "array_record") == "packed_videos-val.array_record-00003-of-00016"


def test_a_hundred_thousand_rows_load_in_seconds(tmp_path: Path) -> None:
    rows = [VIDEOS[0]._replace(path=f"class_{number % 400}/video_{number:07d}.mp4") for number in range(100_000)]
    digest = write_videos(tmp_path, rows)
    start = time.process_time()
    assert len(read_videos(tmp_path, digest)) == 100_000
    assert time.process_time() - start < 4
