from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from vswin.data.decode import VideoReader
from vswin.errors import InputError
from vswin.inference.inputs import Input
from vswin.inference.model import open_model
from vswin.inference.protocol import find_protocol
from vswin.inference.save import name_outputs, save_annotated
from vswin.runtime import start_log


@pytest.fixture(scope="module")
def loaded(run_folder):
    return open_model(str(run_folder), find_protocol(str(run_folder)))


# height, width, frames, rate
@pytest.mark.parametrize(
    ("height", "width", "num_frames", "rate"),
    [(48, 64, 30, 10), (75, 131, 12, 12.5), (150, 90, 5, 25), (33, 64, 2, 30)],
)
def test_a_copy_has_the_size_the_rate_and_all_frames_of_the_video(
    loaded, write_ramp, tmp_path, height, width, num_frames, rate
):
    video = write_ramp(tmp_path / "in" / "a.avi", num_frames, height, width, rate)
    target = tmp_path / "a.mp4"
    save_annotated(loaded, {video: target})
    with av.open(str(target)) as container:
        stream = container.streams.video[0]
        assert (stream.height, stream.width, stream.frames) == (height, width, num_frames)
        assert float(stream.average_rate) == pytest.approx(rate)
        assert float(stream.duration * stream.time_base) == pytest.approx(num_frames / rate, abs=1e-3)
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    # Each frame of the copy equals the video's: the gray at the top, above the text, tells the number.
    grays = [frame[: height // 5].mean() for frame in frames]
    np.testing.assert_allclose(grays, 6 * np.arange(num_frames) + 3, atol=3)
    # OpenCV, an independent reader, reads it, too.
    capture = cv2.VideoCapture(str(target))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == num_frames
    assert capture.read()[1].shape == (height, width, 3)
    assert list(tmp_path.glob(".*")) == []


def test_the_copy_of_a_real_clip_keeps_its_time(loaded, tmp_path):
    source = str(Path(__file__).parents[1] / "clips" / "test.avi")
    save_annotated(loaded, {source: tmp_path / "test.mp4"})
    with VideoReader(source) as before, VideoReader(tmp_path / "test.mp4") as after:
        assert after.num_video_frames == before.num_video_frames
        assert float(after.frame_rate) == pytest.approx(float(before.frame_rate))
        numbers = np.array([0, 80, 160])
        first, second = before.read(numbers), after.read(numbers)
    assert np.abs(first[:, :150].astype(int) - second[:, :150]).mean() < 3
    assert np.abs(first[:, 200:].astype(int) - second[:, 200:]).mean() > 20


def test_a_video_that_breaks_off_is_left_out_and_said(loaded, write_ramp, tmp_path, capsys):
    video = Path(write_ramp(tmp_path / "b.avi", 40, 120, 160))
    content = video.read_bytes()
    video.write_bytes(content[: len(content) // 2])
    start_log(None)
    assert save_annotated(loaded, {str(video): tmp_path / "b.mp4"}) == 1
    assert "b.mp4 is left out: truncated" in capsys.readouterr().out
    assert not (tmp_path / "b.mp4").exists()


def test_copies_are_named_after_the_videos_and_never_take_one_name(tmp_path):
    inputs = [Input("v/run/a.avi", "run/a.avi"), Input("v/run/a.mp4", "run/a.mp4"), Input("w/run/a.mp4", "run/a.mp4")]
    inputs.append(Input("u/run/a.mp4", "run/a.mp4"))
    names = [path.relative_to(tmp_path) for path in name_outputs(inputs, tmp_path, False).values()]
    assert [str(name) for name in names] == ["run/a.mp4", "run/a.mp4.mp4", "run/a.mp4_2.mp4", "run/a.mp4_3.mp4"]
    assert (tmp_path / "run").is_dir()


def test_no_copy_takes_the_place_of_a_file_nor_of_a_video_that_is_read(tmp_path):
    (tmp_path / "a.mp4").touch()
    entry = Input(str(tmp_path / "elsewhere" / "a.avi"), "a.avi")
    with pytest.raises(InputError, match="exists; name another file, or give --overwrite"):
        name_outputs([entry], tmp_path, False)
    assert name_outputs([entry], tmp_path, True) == {entry.path: tmp_path / "a.mp4"}
    with pytest.raises(InputError, match="is one of the videos to read"):
        name_outputs([Input(str(tmp_path / "a.mp4"), "a.mp4")], tmp_path, True)
