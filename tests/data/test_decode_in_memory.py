"""Videos in memory, compared with their files."""

from pathlib import Path

import numpy as np
import pytest

from vswin.data.decode import VideoReader
from vswin.data.decode_error import DecodeError

CLIPS = Path(__file__).parent.parent / "clips"


@pytest.mark.parametrize("decoder", ["auto", "opencv", "pyav"])
@pytest.mark.parametrize("name", ["demo.mp4", "test.avi", "flipping_a_pancake.mkv"])
def test_file_in_memory_gives_the_same_frames(name: str, decoder: str) -> None:
    path = CLIPS / name
    with VideoReader(path, decoder) as file, VideoReader(name, decoder, None, path.read_bytes()) as memory:
        assert memory.path == name
        assert memory.num_video_frames == file.num_video_frames
        numbers = np.array([file.num_video_frames - 1, 0, 77, 77])
        assert np.array_equal(memory.read(numbers), file.read(numbers))
        assert np.array_equal(memory.read(numbers[1:2]), file.read(numbers[1:2]))


@pytest.mark.parametrize("kind", ["empty", "text", "playlist", "audio", "image", "unknown codec", "one frame avi"])
def test_bad_file_in_memory_has_the_same_cause(bad_files, kind: str) -> None:
    for cut in (1.0, 0.5):
        content = Path(bad_files[kind]).read_bytes()
        content = content[: int(cut * len(content))]
        Path(bad_files[kind] + ".cut").write_bytes(content)
        errors = []
        for arguments in ((bad_files[kind] + ".cut",), (bad_files[kind] + ".cut", "auto", None, content)):
            with pytest.raises(DecodeError) as caught, VideoReader(*arguments) as reader:
                reader.read(np.array([0, 1]))
            errors.append((caught.value.cause, caught.value.detail))
        assert errors[0] == errors[1]


@pytest.mark.parametrize("kind", ["truncated mp4", "truncated mp4, index first", "truncated avi", "truncated mkv"])
def test_truncated_file_in_memory_has_the_same_cause(bad_files, kind: str) -> None:
    with pytest.raises(DecodeError) as of_file:
        VideoReader(bad_files[kind])
    with pytest.raises(DecodeError) as of_memory:
        VideoReader(bad_files[kind], content=Path(bad_files[kind]).read_bytes())
    assert of_file.value.args == of_memory.value.args
