from pathlib import Path

import pytest

from vswin.data.inspection import check_whole
from vswin.errors import DecodeError

CLIPS = Path(__file__).parent.parent / "clips"


def cut(path: Path, share: float, folder: Path) -> str:
    content = path.read_bytes()
    target = folder / f"{share}_{path.name}"
    target.write_bytes(content[: int(len(content) * share)])
    return str(target)


@pytest.mark.parametrize(("name", "num_bytes"), [("test.avi", "294,566"), ("flipping_a_pancake.mkv", "436,346")])
def test_file_without_its_end_is_refused(tmp_path: Path, name: str, num_bytes: str) -> None:
    for share in (0.01, 0.5, 0.94):
        with pytest.raises(DecodeError, match=f"of {num_bytes} bytes are there") as caught:
            check_whole(cut(CLIPS / name, share, tmp_path))
        assert caught.value.cause == "truncated"


@pytest.mark.parametrize("name", ["test.avi", "flipping_a_pancake.mkv", "demo.mp4"])
def test_whole_file_passes_with_and_without_its_last_bytes(tmp_path: Path, name: str) -> None:
    check_whole(str(CLIPS / name))
    check_whole(cut(CLIPS / name, 0.97, tmp_path))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"R",
        b"RIFF\xff\xff\xff\xffAVI LIST",
        b"RIFF\x00\x00\x00\x00AVI LIST",
        b"RIFF\xff\xff\x00\x00WAVEfmt ",
        b"\x1a\x45\xdf\xa3",
        b"\x1a\x45\xdf\xa3\x82ab\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff",
        b"\x1a\x45\xdf\xa3\x82ab\x18\x53\x80\x67\x01\x00",
        b"\x1a\x45\xdf\xa3\x82ab\x18\x53\x80\x67\x00\x00",
        b"\x1a\x45\xdf\xa3\x00abcdefghijkl",
    ],
    ids=lambda content: content.hex()[:40],
)
def test_file_that_states_no_length_passes(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "any"
    path.write_bytes(content)
    check_whole(str(path))


def test_matroska_length_may_have_any_number_of_bytes(tmp_path: Path) -> None:
    header = b"\x1a\x45\xdf\xa3\x82ab\x18\x53\x80\x67"
    for length in (b"\xe4", b"\x40\x64", b"\x10\x00\x00\x64", b"\x01\x00\x00\x00\x00\x00\x00\x64"):
        path = tmp_path / length.hex()
        path.write_bytes(header + length + bytes(100))
        check_whole(str(path))
        path.write_bytes(header + length + bytes(80))
        with pytest.raises(DecodeError, match=f"of {len(header) + len(length) + 100} bytes"):
            check_whole(str(path))
