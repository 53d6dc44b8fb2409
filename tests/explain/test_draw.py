"""The pixels of heat over frames, sheets and films."""

import numpy as np

from vswin.explain.draw import HeatedClip, draw_clips, draw_film, draw_heat


def make_clip(num_frames: int = 12, height: int = 20, width: int = 30, **changes) -> HeatedClip:
    """Makes a gray clip whose right half is hot."""
    heat = np.zeros([num_frames, height, width], np.float32)
    heat[:, :, width // 2 :] = 1
    frames = np.full([num_frames, height, width, 3], 100, np.uint8)
    fields = {
        "frames": frames,
        "heat": heat,
        "numbers": 2 * np.arange(num_frames),
        "seconds": 0.1 * np.arange(num_frames),
        "title": "wave: 50 %",
        "lines": ["a.mp4"],
    }
    return HeatedClip(**{**fields, "boxes": [None] * num_frames, **changes})


def colours(image: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(pixel) for pixel in np.asarray(image).reshape(-1, 3).tolist()}


def test_without_heat_a_frame_is_gray_and_the_greatest_heat_is_red():
    frame = np.random.default_rng(0).integers(0, 256, [6, 8, 3], dtype=np.uint8)
    heat = np.zeros([6, 8], np.float32)
    heat[:, 4:] = 1
    drawn = draw_heat(frame, heat).astype(int)
    assert (drawn[:, :4].min(axis=2) == drawn[:, :4].max(axis=2)).all()
    hot = drawn[:, 4:]
    assert (hot[..., 0] > 120).all()
    assert (hot[..., 0] > hot[..., 1] + 60).all()
    # The picture stays visible.
    assert len(colours(hot)) > 4


def test_a_sheet_has_eight_frames_of_each_clip_in_two_rows():
    sheet = np.asarray(draw_clips([make_clip(), make_clip()]))
    assert sheet.shape[1] == 2 * 16 + 8 * 240 + 7 * 4
    rows = (sheet[:, 20] == 100).all(axis=1)  # the level of the gray picture
    assert np.diff(rows.astype(int)).clip(min=0).sum() == 4  # two rows of two clips
    assert rows.sum() == 4 * 160
    few = draw_clips([make_clip(num_frames=3, height=20, width=20)])
    assert few.size[0] == 640 + 32


def test_a_film_shows_every_frame_and_its_sides_are_even():
    clips = [make_clip(5, 21, 33), make_clip(5, 21, 33)]
    film = list(draw_film(clips))
    assert len(film) == 10
    assert len({frame.shape for frame in film}) == 1
    assert all(side % 2 == 0 for side in film[0].shape[:2])
    # Only their times differ.
    assert not np.array_equal(film[0], film[1])
    assert np.array_equal(film[0], film[5])


def test_a_token_is_boxed_and_its_sheet_shows_the_frames_it_looks_at():
    boxes = [None] * 4 + [(4, 5, 8, 10)] * 2 + [None] * 6
    heat = make_clip().heat * np.isin(np.arange(12), [4, 5, 6])[:, None, None]
    clip = make_clip(heat=heat.astype(np.float32), boxes=boxes)
    film = list(draw_film([clip]))
    bright = [(frame[80:] == 255).all(axis=2).sum() for frame in film]
    assert bright[4] == bright[5] > bright[3] == bright[6]
    assert np.asarray(draw_clips([clip])).shape[1] < 3 * 244 + 40
