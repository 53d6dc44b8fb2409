from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from vswin.data.opencv_decoder import OpenCVDecoder, check_opencv
from vswin.errors import InputError


def test_frames_come_one_by_one_in_bgr(write_video) -> None:
    decoder = OpenCVDecoder(write_video("opencv.avi", 3))
    for number in range(3):
        assert decoder.grab()
        assert np.array_equal(decoder.retrieve(), np.full((48, 64, 3), 10 + 12 * number, np.uint8))
    assert not decoder.grab()
    decoder.close()


@pytest.mark.parametrize("kind", ["text", "audio", "unknown codec"])
def test_file_it_cannot_open_has_no_frames(bad_files, capfd, kind: str) -> None:
    decoder = OpenCVDecoder(bad_files[kind])
    assert not decoder.grab()
    decoder.close()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("version", ["4.11.0", "4.12.0.88"])
def test_tested_opencv_is_accepted(version: str) -> None:
    check_opencv(version)


@pytest.mark.parametrize("version", ["4.10.0", "4.13.0", "5.0.0-pre", "3.4.18"])
def test_other_opencv_is_refused(version: str) -> None:
    with pytest.raises(InputError, match=rf"OpenCV {version}.*pip install"):
        check_opencv(version)


def test_videos_in_memory_may_be_closed_by_many_threads(write_video) -> None:
    # OpenCV releases its reference to the bytes without Python's lock, which used to crash the process.
    content = Path(write_video("memory.avi", 3)).read_bytes()

    def decode(number: int) -> int:
        decoder = OpenCVDecoder("memory.avi", bytes(content[: None if number % 4 else 50]))
        is_open = decoder.grab()
        decoder.close()
        return is_open

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(decode, range(400))) == [number % 4 != 0 for number in range(400)]
