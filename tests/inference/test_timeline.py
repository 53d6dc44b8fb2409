import numpy as np
import pytest

from tests.conftest import make_group
from vswin.data.decode import VideoReader
from vswin.inference.annotate import Timeline, make_timeline, place_clips


def make_clip(**changes):
    fields = {
        "num_frames": 4,
        "frame_stride": 2,
        "resize": 24,
        "crop": 24,
        "num_clips": 1,
        "num_crops": 1,
        "sampling": "dense",
        "spacing": "centred",
        "views_per_step": 2,
    }
    return make_group("clip", **fields | changes)


@pytest.mark.parametrize(
    ("num_video_frames", "starts"),
    [(7, [0]), (8, [0]), (9, [0, 2]), (11, [0, 4]), (12, [0, 4]), (13, [0, 4, 6]), (21, [0, 4, 8, 12, 14])],
)
def test_clips_cover_the_video_each_half_over_the_one_before(num_video_frames, starts):
    placed = place_clips(num_video_frames, make_clip())
    np.testing.assert_array_equal(placed, np.array(starts)[:, None] + [0, 2, 4, 6])
    assert placed.max() >= num_video_frames - 2  # all but less than a step


def test_a_video_shorter_than_a_clip_starts_again():
    np.testing.assert_array_equal(place_clips(5, make_clip()), [[0, 2, 4, 1]])


def test_clips_of_one_frame_move_on():
    np.testing.assert_array_equal(place_clips(5, make_clip(num_frames=1)), [[0], [2], [4]])


def test_with_segments_clips_are_around_each_moment_and_closer_in_a_short_video():
    np.testing.assert_array_equal(place_clips(41, make_clip(sampling="segments")), place_clips(41, make_clip()))
    np.testing.assert_array_equal(
        place_clips(7, make_clip(sampling="segments")), [[0, 1, 2, 3], [2, 3, 4, 5], [3, 4, 5, 6]]
    )
    np.testing.assert_array_equal(place_clips(3, make_clip(sampling="segments")), [[0, 0, 1, 2]])


def test_a_frame_has_the_average_of_the_clips_around_it():
    # Clips of 8 frames that overlap by half and predict a, a, b.
    timeline = Timeline(np.array([4.0, 8.0, 12.0]), np.array([[1, 0], [1, 0], [0, 1]], np.float32), 8.0)
    at = timeline.at(np.array([0, 4, 8, 10, 12, 16]))
    np.testing.assert_allclose(at[0], [1, 0], atol=1e-6)  # the third clip is 12 frames away
    np.testing.assert_allclose(at[1], [1, 0], atol=1e-6)
    np.testing.assert_allclose(at[2], [1.5 / 2, 0.5 / 2], atol=1e-6)  # weights 1/2, 1, 1/2
    np.testing.assert_allclose(at[3], [1 / 1.75, 0.75 / 1.75], atol=1e-6)  # weights 1/4, 3/4, 3/4
    np.testing.assert_allclose(at[5], [0, 1], atol=1e-6)
    np.testing.assert_allclose(at.sum(axis=1), 1, atol=1e-6)


def test_frames_beyond_all_clips_have_the_nearest():
    timeline = Timeline(np.array([4.0, 8.0]), np.array([[1, 0], [0, 1]], np.float32), 2.0)
    np.testing.assert_allclose(timeline.at(np.array([-50, 99])), [[1, 0], [0, 1]], atol=1e-6)


@pytest.mark.parametrize("views_per_step", [1, 2, 7])
def test_the_model_sees_each_clip_once_and_in_its_place(write_ramp, tmp_path, views_per_step):
    path = write_ramp(tmp_path / "ramp.avi", 21, height=48, width=64)
    seen, told = [], []

    def classify(clips):
        assert clips.shape[1:] == (4, 24, 24, 3)
        assert clips.dtype == np.uint8
        seen.extend(np.round((clips.mean(axis=(2, 3, 4)) - 3) / 6).astype(int).tolist())
        return np.eye(5, dtype=np.float32)[[len(seen) % 5] * len(clips)]

    with VideoReader(path) as reader:
        timeline = make_timeline(
            reader, make_clip(views_per_step=views_per_step), classify, lambda *counts: told.append(counts)
        )
    assert seen == place_clips(21, make_clip()).tolist()
    assert timeline.centres.tolist() == [3, 7, 11, 15, 17]
    assert timeline.reach == 6
    assert timeline.probabilities.shape == (5, 5)
    assert told[-1] == (5, 5)
