import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vswin.data.sampling import end_to_end_clips, random_clip, segments, uniform_clips

counts = st.integers(1, 400)
lengths = st.integers(1, 40)
strides = st.integers(1, 9)


def test_uniform_clips_of_kinetics_length() -> None:
    numbers = uniform_clips(300, 32, 2, 4)
    assert numbers.shape == (4, 32)
    assert numbers[:, 0].tolist() == [29, 88, 148, 207]
    assert numbers[0].tolist() == list(range(29, 29 + 64, 2))
    assert uniform_clips(250, 32, 2, 1)[0, 0] == 93


def test_end_to_end_clips_of_kinetics_length() -> None:
    # From mmaction2 1.x, whose span is (32 - 1) * 2 + 1 = 63 frames.
    assert end_to_end_clips(300, 32, 2, 4)[:, 0].tolist() == [0, 79, 158, 237]
    assert end_to_end_clips(300, 32, 2, 4)[3, -1] == 299
    assert end_to_end_clips(300, 32, 2, 1)[0, 0] == 118
    # 0, 2.5 and 5: halves round to the even number.
    assert end_to_end_clips(12, 4, 2, 3)[:, 0].tolist() == [0, 2, 5]
    assert end_to_end_clips(5, 4, 2, 2).tolist() == [[0, 2, 4, 1]] * 2


def test_short_video_loops() -> None:
    assert uniform_clips(5, 4, 2, 2).tolist() == [[0, 2, 4, 1]] * 2
    rng = np.random.default_rng(0)
    assert random_clip(3, 5, 1, rng).tolist() == [0, 1, 2, 0, 1]


def test_random_clip_starts_at_every_place_that_fits_and_no_other() -> None:
    rng = np.random.default_rng(0)
    clips = [random_clip(12, 4, 2, rng) for _ in range(400)]
    # 12 - 4*2 + 1 = 5 starts: the last one, 4, leaves frame 11 out, since the official span is 4*2.
    assert {int(clip[0]) for clip in clips} == {0, 1, 2, 3, 4}
    assert all(np.array_equal(np.diff(clip), [2, 2, 2]) for clip in clips)


def test_segments_take_the_middle_in_test_and_any_frame_in_training() -> None:
    assert segments(50, 32)[:9].tolist() == [1, 2, 4, 5, 7, 8, 10, 11, 13]
    rng = np.random.default_rng(0)
    drawn = np.stack([segments(17, 4, rng) for _ in range(300)])
    assert [set(column) for column in drawn.T.tolist()] == [
        {0, 1, 2, 3, 4},
        {4, 5, 6, 7, 8},
        {8, 9, 10, 11, 12},
        {12, 13, 14, 15, 16},
    ]


@given(counts, lengths, strides, st.integers(1, 10))
def test_clips_stay_inside_the_video(n: int, t: int, stride: int, clips: int) -> None:
    uniform = uniform_clips(n, t, stride, clips)
    drawn = random_clip(n, t, stride, np.random.default_rng(n))
    assert uniform.shape == (clips, t)
    assert drawn.shape == (t,)
    for numbers in (uniform, drawn):
        assert numbers.dtype == np.int64
        assert numbers.min() >= 0
        assert numbers.max() < n
    if n >= t * stride:
        assert (np.diff(uniform, axis=1) == stride).all()
        assert (np.diff(drawn) == stride).all()


@given(counts, lengths)
def test_segments_stay_inside_the_video_and_in_order(n: int, t: int) -> None:
    for numbers in (segments(n, t), segments(n, t, np.random.default_rng(t))):
        assert numbers.dtype == np.int64
        assert numbers.shape == (t,)
        assert numbers.min() >= 0
        assert numbers.max() < n
        assert (np.diff(numbers) >= 0).all()
