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
