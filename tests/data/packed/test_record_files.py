from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from vswin.data.packed import record_files
from vswin.data.packed.record_files import check_file_format, open_array_record_writer, open_records
from vswin.errors import InputError

RECORDS = [np.random.default_rng(number).bytes(number * 977) for number in range(40)]


@pytest.fixture(params=["tfrecord", "array_record"])
def records_file(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    path = tmp_path / f"data.{request.param}"
    writer = tf.io.TFRecordWriter(str(path)) if request.param == "tfrecord" else open_array_record_writer(path)
    for record in RECORDS:
        writer.write(record)
    writer.close()
    return path, request.param


def test_positions_of_a_scan_find_the_records(records_file) -> None:
    file = open_records(*records_file)
    assert [file.read(record.position) for record in file.scan()] == RECORDS


def test_parts_end_with_the_record(records_file) -> None:
    for record, expected in zip(open_records(*records_file).scan(), RECORDS, strict=True):
        assert record.num_bytes == len(expected)
        assert record.read(0, record.num_bytes) == expected
        assert record.read(5, 7) == expected[5:12]
        assert record.read(max(0, len(expected) - 3), 100) == expected[-3:]
        assert record.read(len(expected), 10) == b""


def test_records_are_read_in_any_order_by_many_threads(records_file) -> None:
    file = open_records(*records_file)
    positions = [record.position for record in file.scan()]
    order = np.random.default_rng(0).integers(len(RECORDS), size=600)
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda number: file.read(positions[number]), order))
    assert read == [RECORDS[number] for number in order]


def test_empty_file_has_no_records(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert list(open_records(tmp_path / "empty", "tfrecord").scan()) == []
    with pytest.raises(ValueError, match="cut off or no ArrayRecord file"):
        open_records(tmp_path / "empty", "array_record")


def test_truncated_file_is_noticed(records_file) -> None:
    path, file_format = records_file
    last = list(open_records(path, file_format).scan())[-1].position
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ValueError, match=r"cut off|ends in the record at byte"):
        list(open_records(path, file_format).scan())
    with pytest.raises(ValueError, match=r"cut off|ends in the record at byte"):
        open_records(path, file_format).read(last)


def test_position_of_no_record_is_noticed(records_file) -> None:
    path, file_format = records_file
    with pytest.raises(ValueError, match=r"has no record at byte|out of bound"):
        open_records(path, file_format).read(path.stat().st_size)
    if file_format == "tfrecord":
        with pytest.raises(ValueError, match=r"no record at byte 3.*damaged"):
            open_records(path, file_format).read(3)


def test_array_records_with_flipped_bits_are_noticed(tmp_path: Path) -> None:
    writer = open_array_record_writer(tmp_path / "data")
    for record in RECORDS:
        writer.write(record)
    writer.close()
    content = bytearray((tmp_path / "data").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "data").write_bytes(content)
    with pytest.raises(ValueError, match="hash mismatch"):
        list(open_records(tmp_path / "data", "array_record").scan())


def test_missing_file_is_an_os_error(tmp_path: Path) -> None:
    for file_format in record_files.FILE_FORMATS:
        with pytest.raises(FileNotFoundError):
            list(open_records(tmp_path / "nowhere", file_format).scan())


def test_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"in the format riegeli; only array_record and tfrecord can be read"):
        open_records(tmp_path, "riegeli")
    with pytest.raises(InputError, match=r"file_format=riegeli: one of array_record, tfrecord"):
        check_file_format("riegeli")


def test_absent_library_is_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(record_files.importlib.util, "find_spec", lambda name: None)
    (tmp_path / "file").touch()
    for use in (check_file_format, lambda file_format: open_records(tmp_path / "file", file_format)):
        with pytest.raises(InputError, match=r"`pip install array-record`, or pack the data with file_format=tfrecord"):
            use("array_record")
    check_file_format("tfrecord")
