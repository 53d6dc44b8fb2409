import io
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from vswin.weights.formats.raw_tensor import MalformedError, Storage
from vswin.weights.formats.torch_zip import read_zip

FILES = Path(__file__).parents[1] / "files"
EMPTY = pickle.dumps({}, 2)
FOUR = Storage("0", "uint8", 4)


def archive(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as made:
        for name, content in members.items():
            made.writestr(name, content)
    return buffer.getvalue()


def refuse(content: bytes, problem: str) -> None:
    with pytest.raises(MalformedError, match=problem):
        read_zip(memoryview(content))


def test_stored_members_are_views_of_the_file():
    content = archive({"x/data.pkl": EMPTY, "x/data/0": b"abcd", "x/byteorder": b"little"})
    payload, bytes_of = read_zip(memoryview(content))
    assert payload == {}
    values = bytes_of(FOUR)
    assert values.tobytes() == b"abcd"
    assert np.shares_memory(values, np.frombuffer(content, np.uint8))
    assert bytes_of(Storage("0", "int16", 1)).tobytes() == b"ab"
    assert len(bytes_of(Storage("0", "float32", 0))) == 0


def test_members_need_no_folder():
    _, bytes_of = read_zip(memoryview(archive({"data.pkl": EMPTY, "data/0": b"abcd"})))
    assert bytes_of(FOUR).tobytes() == b"abcd"


def test_bytes_before_the_archive_do_not_matter():
    content = b"PK before" + archive({"x/data.pkl": EMPTY, "x/data/0": b"abcd"})
    assert read_zip(memoryview(content))[1](FOUR).tobytes() == b"abcd"


def test_an_archive_compressed_by_another_tool_reads_the_same():
    with zipfile.ZipFile(FILES / "mmcv.pth") as original:
        members = {info.filename: original.read(info) for info in original.infolist()}
    payload, bytes_of = read_zip(memoryview(archive(members, zipfile.ZIP_DEFLATED)))
    original_payload, original_bytes_of = read_zip(memoryview((FILES / "mmcv.pth").read_bytes()))
    assert payload["state_dict"] == original_payload["state_dict"]
    for tensor in payload["state_dict"].values():
        assert bytes_of(tensor.storage).tobytes() == original_bytes_of(tensor.storage).tobytes()


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unusual_compression_is_refused(compression):
    refuse(archive({"x/data.pkl": EMPTY}, compression), r"'x/data\.pkl' is encrypted or compressed in an unusual way")


def test_encrypted_members_are_refused():
    content = bytearray(archive({"x/data.pkl": EMPTY}))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + offset] |= 1
    refuse(bytes(content), "encrypted")


def test_a_zip_bomb_is_refused_before_it_is_inflated():
    bomb = archive({"x/data.pkl": EMPTY, "x/data/0": bytes(20 * 2**20)}, zipfile.ZIP_DEFLATED)
    refuse(bomb, r"would inflate to 20971\d+, over 10 times")


def test_a_member_that_is_larger_or_shorter_than_announced_is_damaged():
    content = archive({"x/data.pkl": EMPTY, "x/data/0": bytes(500_000)}, zipfile.ZIP_DEFLATED)
    for announced in (100, 900_000):
        changed = bytearray(content)
        struct.pack_into("<I", changed, changed.rindex(b"PK\x01\x02") + 24, announced)
        _, bytes_of = read_zip(memoryview(changed))
        with pytest.raises(MalformedError, match="x/data/0"):
            bytes_of(Storage("0", "uint8", announced))


def test_a_wrong_checksum_of_a_compressed_member_is_noticed():
    content = bytearray(archive({"x/data.pkl": EMPTY, "x/data/0": b"abcd" * 99}, zipfile.ZIP_DEFLATED))
    content[content.rindex(b"PK\x01\x02") + 16] ^= 1
    with pytest.raises(MalformedError, match="data/0' is damaged"):
        read_zip(memoryview(content))[1](FOUR)


def test_two_members_of_one_name_are_refused():
    content = archive({"x/data.pkl": EMPTY, "y/data.pkl": EMPTY}).replace(b"y/data.pkl", b"x/data.pkl")
    refuse(content, "two members called 'x/data.pkl'")


def test_archives_that_are_no_checkpoints_are_named():
    refuse(archive({"a.txt": b""}), "0 members called data.pkl")
    refuse(archive({"x/data.pkl": EMPTY, "y/data.pkl": EMPTY}), "2 members called data.pkl")
    refuse(archive({"x/data.pkl": EMPTY, "x/constants.pkl": EMPTY}), "TorchScript")


@pytest.mark.parametrize("order", [b"big", b"", b"little-ish", b"\xff" * 1000])
def test_another_byte_order_is_refused(order):
    refuse(archive({"x/data.pkl": EMPTY, "x/byteorder": order}), "byte order is")


def test_storages_missing_or_short_are_errors():
    _, bytes_of = read_zip(memoryview(archive({"x/data.pkl": EMPTY, "x/data/0": b"abc"})))
    with pytest.raises(MalformedError, match="3 bytes instead of 4"):
        bytes_of(FOUR)
    with pytest.raises(MalformedError, match="no member 'x/data/1'"):
        bytes_of(Storage("1", "uint8", 4))
    with pytest.raises(MalformedError, match="no member"):
        bytes_of(Storage("../data.pkl", "uint8", 4))


def test_a_stored_member_cannot_reach_beyond_the_file():
    content = bytearray(archive({"x/data.pkl": EMPTY, "x/data/0": b"abcd"}))
    entry = content.rindex(b"PK\x01\x02")
    struct.pack_into("<II", content, entry + 20, 10**9, 10**9)
    with pytest.raises(MalformedError, match="damaged at the member 'x/data/0'"):
        read_zip(memoryview(content))[1](Storage("0", "uint8", 10**9))


def test_a_member_whose_local_header_is_elsewhere_is_damaged():
    content = bytearray(archive({"x/data.pkl": EMPTY, "x/data/0": b"abcd"}))
    struct.pack_into("<I", content, content.rindex(b"PK\x01\x02") + 42, 3)
    with pytest.raises(MalformedError, match="damaged at the member 'x/data/0'"):
        read_zip(memoryview(content))[1](FOUR)


def test_a_pickle_that_inflates_to_nonsense_is_malformed():
    content = bytearray(archive({"x/data.pkl": EMPTY * 20}, zipfile.ZIP_DEFLATED))
    content[content.index(b"data.pkl") + 8] = 0xFF
    refuse(bytes(content), "zip archive is damaged")


def test_names_from_damaged_headers_do_not_flood_the_message():
    content = bytearray(archive({"x/data.pkl": EMPTY * 9, "y": bytes(70_000)}, zipfile.ZIP_STORED))
    entry = content.index(b"PK\x01\x02")
    struct.pack_into("<H", content, entry + 10, zipfile.ZIP_DEFLATED)
    struct.pack_into("<H", content, 26, 65_000)
    with pytest.raises(MalformedError) as caught:
        read_zip(memoryview(content))
    assert "damaged" in str(caught.value)
    assert len(str(caught.value)) < 300
