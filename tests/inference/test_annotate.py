"""Annotated copies: the prediction at each moment, how it is drawn, and the files."""

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from vswin.config.schema import ClipConfig
from vswin.data.decode import VideoReader
from vswin.inference.annotate import Annotator, Timeline, make_timeline, place_clips, save_annotated
from vswin.runtime import start_log

NAMES = ["passing American football (not in game)", "run", "Größe", "Donaudampfschifffahrtsgesellschaftskapitän"]
ORANGE, BLUE = [230, 159, 0], [86, 180, 233]


def make_clip(**changes):
    fields = {
        **{"num_frames": 4, "frame_stride": 2, "resize": 24, "crop": 24, "num_clips": 1, "num_crops": 1},
        **{"sampling": "dense", "spacing": "centred", "views_per_step": 2},
    }
    return ClipConfig(**fields | changes)


def two_actions(height, width, names=NAMES):
    """Annotates 60 frames of the first class, then 40 of the second."""
    probabilities = np.full((10, len(names)), 0.02, np.float32)
    probabilities[:6, 0] = probabilities[6:, 1] = 0.94
    return Annotator(Timeline(np.arange(5.0, 100, 10), probabilities, 10.0), names, 100, height, width)


@pytest.mark.parametrize(
    ("num_video_frames", "changes", "positions"),
    [
        *((count, {}, [[0, 2, 4, 6]]) for count in (7, 8)),
        (9, {}, [[0, 2, 4, 6], [2, 4, 6, 8]]),
        (13, {}, [[0, 2, 4, 6], [4, 6, 8, 10], [6, 8, 10, 12]]),
        (5, {}, [[0, 2, 4, 1]]),  # shorter than a clip
        (5, {"num_frames": 1}, [[0], [2], [4]]),
        (
            13,
            {"sampling": "segments"},
            [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7], [6, 7, 8, 9], [8, 9, 10, 11], [9, 10, 11, 12]],
        ),
        (7, {"sampling": "segments"}, [[0, 1, 2, 3], [2, 3, 4, 5], [3, 4, 5, 6]]),
        (3, {"sampling": "segments"}, [[0, 0, 1, 2]]),
    ],
)
def test_clips_cover_the_video_each_half_over_the_previous_one(num_video_frames, changes, positions):
    np.testing.assert_array_equal(place_clips(num_video_frames, make_clip(**changes)), positions)


def test_a_frame_has_the_average_of_the_clips_around_it_or_the_nearest():
    # Clips of 8 frames that overlap by half and predict a, a, b.
    timeline = Timeline(np.array([4.0, 8.0, 12.0]), np.array([[1, 0], [1, 0], [0, 1]], np.float32), 8.0)
    expected = {-50: [1, 0], 4: [1, 0], 8: [1.5 / 2, 0.5 / 2], 10: [1 / 1.75, 0.75 / 1.75], 16: [0, 1], 99: [0, 1]}
    np.testing.assert_allclose(timeline.at(np.array(list(expected))), list(expected.values()), atol=1e-6)


@pytest.mark.parametrize("views_per_step", [1, 2, 7])
def test_the_model_sees_each_clip_once_and_in_its_place(write_ramp, tmp_path, views_per_step):
    path = write_ramp(tmp_path / "ramp.avi", 21, height=48, width=64)
    seen, shown = [], []

    def classify(clips):
        assert (clips.shape[1:], clips.dtype) == ((4, 24, 24, 3), np.uint8)
        seen.extend(np.round((clips.mean(axis=(2, 3, 4)) - 3) / 6).astype(int).tolist())
        return np.eye(5, dtype=np.float32)[[len(seen) % 5] * len(clips)]

    with VideoReader(path) as reader:
        clip = make_clip(views_per_step=views_per_step)
        timeline = make_timeline(reader, clip, classify, lambda **counts: shown.append(counts))
    assert seen == place_clips(21, make_clip()).tolist()
    assert timeline.centres.tolist() == [3, 7, 11, 15, 17]
    assert (timeline.reach, timeline.probabilities.shape) == (6, (5, 5))
    assert shown[-1] == {"completed": 5, "total": 5}


SIZES = [(64, 64), (48, 64), (114, 64), (97, 131), (240, 320), (480, 270), (1080, 1920), (2160, 3840)]


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("level", [0, 255])
def test_text_stands_out_from_any_picture_at_any_size_and_covers_all_frames_alike(height, width, level):
    frame = np.full((height, width, 3), level, np.uint8)
    annotator = two_actions(height, width)
    drawn = annotator.draw(frame, 10)
    assert (drawn.shape, drawn.dtype) == (frame.shape, np.uint8)
    assert (frame == level).all()  # the frame itself is unchanged
    changed = np.flatnonzero((drawn != frame).any(axis=(1, 2)))
    assert changed[-1] == height - 1
    assert height - changed[0] <= max(0.45 * height, 25)
    # White letters on a dark background: WCAG's contrast of 4.5 to 1 needs levels below 118.
    panel = drawn[changed[0] : height - max(4, round(7 + 0.03 * min(height, width)) // 2)]
    assert panel.max() > 240
    assert np.median(panel) < 118
    if level:
        assert np.flatnonzero((annotator.draw(frame, 90) != frame).any(axis=(1, 2)))[0] == changed[0]


def test_the_timeline_shows_the_best_class_of_each_moment_and_marks_the_present():
    annotator, frame = two_actions(240, 320), np.zeros((240, 320, 3), np.uint8)
    rows = [annotator.draw(frame, number)[-2].tolist() for number in range(100)]
    assert rows[0][20:185] == [ORANGE] * 165
    assert rows[0][200:] == [BLUE] * 120
    marks = [np.flatnonzero((np.array(row) == 255).all(axis=1)).mean() for row in rows]
    assert marks == sorted(marks)
    assert (marks[0] < 5, marks[50] == pytest.approx(161, abs=2), marks[-1] > 314) == (True, True, True)


def test_each_class_has_its_line_and_those_beyond_the_colours_are_gray():
    probabilities = np.full((10, 10), 0.01, np.float32)
    probabilities[np.arange(10), np.arange(10)] = 0.9
    timeline = Timeline(np.arange(5.0, 100, 10), probabilities, 1.0)
    drawn = Annotator(timeline, [str(i) for i in range(10)], 100, 120, 200).draw(np.zeros((120, 200, 3), np.uint8), 0)
    colors = {tuple(color) for color in drawn[-1, 20:].tolist()}
    assert len(colors) == 8
    assert (150, 150, 150) in colors
    for num_classes in (1, 2):
        alone = Timeline(np.array([1.0]), np.full((1, num_classes), 1 / num_classes, np.float32), 0.0)
        annotator = Annotator(alone, NAMES[:num_classes], 2, 120, 160)
        assert annotator.draw(np.zeros((120, 160, 3), np.uint8), 1).max() == 255


def test_names_of_any_alphabet_are_drawn_and_long_ones_and_bad_characters_are_bounded():
    frame = np.zeros((240, 320, 3), np.uint8)

    def draw(name):
        return two_actions(240, 320, [name, "b", "c"]).draw(frame, 0)

    drawn = {name: draw(name) for name in ("прыжок", "ходьба", "قفز", "\udcff", "")}
    assert len({image.tobytes() for image in drawn.values()}) == len(drawn)
    np.testing.assert_array_equal(draw("\x1b[2J\n"), draw("\\x1b[2J\\n"))
    # The percentage stays free of a long name, whatever its length.
    np.testing.assert_array_equal(draw("x" * 9999), draw("x" * 300))
    np.testing.assert_array_equal(draw("x" * 300)[:, 270:], draw("x")[:, 270:])


# height, width, frames, rate
@pytest.mark.parametrize(
    ("height", "width", "num_frames", "rate"),
    [(48, 64, 30, 10), (75, 131, 12, 12.5), (150, 90, 5, 25), (33, 64, 2, 30)],
)
def test_a_copy_has_the_size_the_rate_and_all_frames_of_the_video(
    loaded, write_ramp, tmp_path, height, width, num_frames, rate
):
    video = write_ramp(tmp_path / "in" / "a.avi", num_frames, height, width, rate)
    film = tmp_path / "a.mp4"
    save_annotated(loaded, {video: film})
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        assert (stream.height, stream.width, stream.frames) == (height, width, num_frames)
        assert float(stream.average_rate) == pytest.approx(rate)
        assert float(stream.duration * stream.time_base) == pytest.approx(num_frames / rate, abs=1e-3)
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    # Each frame of the copy equals the video's: the gray at the top, above the text, tells the number.
    grays = [frame[: height // 5].mean() for frame in frames]
    np.testing.assert_allclose(grays, 6 * np.arange(num_frames) + 3, atol=3)
    # OpenCV, an independent reader, reads it, too.
    capture = cv2.VideoCapture(str(film))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == num_frames
    assert capture.read()[1].shape == (height, width, 3)
    assert list(tmp_path.glob(".*")) == []


def test_the_copy_of_a_real_clip_keeps_its_time(loaded, tmp_path):
    source = str(Path(__file__).parents[1] / "clips" / "test.avi")
    save_annotated(loaded, {source: tmp_path / "test.mp4"})
    with VideoReader(source) as before, VideoReader(tmp_path / "test.mp4") as after:
        assert after.num_video_frames == before.num_video_frames
        assert float(after.frame_rate) == pytest.approx(float(before.frame_rate))
        first, second = (reader.read(np.array([0, 80, 160])).astype(int) for reader in (before, after))
    assert np.abs(first[:, :150] - second[:, :150]).mean() < 3
    assert np.abs(first[:, 200:] - second[:, 200:]).mean() > 20


def test_a_video_that_breaks_off_is_left_out_and_said(loaded, write_ramp, tmp_path, capsys):
    video = Path(write_ramp(tmp_path / "b.avi", 40, 120, 160))
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    start_log(None)
    assert save_annotated(loaded, {str(video): tmp_path / "b.mp4"}) == 1
    assert "b.mp4 is left out: truncated" in capsys.readouterr().out
    assert not (tmp_path / "b.mp4").exists()
