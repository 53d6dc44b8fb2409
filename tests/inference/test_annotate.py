import numpy as np
import pytest

from vswin.inference.annotate import Annotator, Timeline

NAMES = ["passing American football (not in game)", "run", "Größe", "Donaudampfschifffahrtsgesellschaftskapitän"]
ORANGE, BLUE = (230, 159, 0), (86, 180, 233)


def make_timeline(num_classes=4):
    """Predicts the first class for 60 frames, then the second for 40."""
    probabilities = np.full((10, num_classes), 0.02, np.float32)
    probabilities[:6, 0] = probabilities[6:, 1] = 0.94
    return Timeline(np.arange(5.0, 100, 10), probabilities, 10.0)


# height, width
SIZES = [(64, 64), (48, 64), (114, 64), (97, 131), (240, 320), (480, 270), (1080, 1920), (2160, 3840)]


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("level", [0, 255])
def test_text_stands_out_from_any_picture_at_any_size(height, width, level):
    frame = np.full((height, width, 3), level, np.uint8)
    drawn = Annotator(make_timeline(), NAMES, 100, height, width).draw(frame, 10)
    assert (drawn.shape, drawn.dtype) == (frame.shape, np.uint8)
    assert (frame == level).all()  # the frame itself is unchanged
    changed = np.flatnonzero((drawn != frame).any(axis=(1, 2)))
    assert (drawn[: max(0, changed[0] - 1)] == level).all()
    assert changed[-1] == height - 1
    assert height - changed[0] <= max(0.6 * height, 25)
    # White letters on a dark background: WCAG's contrast of 4.5 to 1 needs levels below 118.
    bar_height = max(4, round(7 + 0.03 * min(height, width)) // 2)
    panel = drawn[changed[0] : height - bar_height]
    assert panel.max() > 240
    assert np.median(panel) < 118


def test_the_bar_shows_the_best_class_of_each_moment_and_the_mark_the_present():
    frame = np.zeros((240, 320, 3), np.uint8)
    annotator = Annotator(make_timeline(), NAMES, 100, 240, 320)
    bar = annotator.draw(frame, 0)[-2].tolist()
    assert bar[20:185] == [list(ORANGE)] * 165
    assert bar[200:] == [list(BLUE)] * 120
    # Frame 0 is at the left, the last one at the right.
    assert [255, 255, 255] in bar[:5]
    last = annotator.draw(frame, 99)[-2].tolist()
    assert [255, 255, 255] in last[-5:]
    assert last[:180] == [list(ORANGE)] * 180
    middle = annotator.draw(frame, 50)[-2].tolist()
    assert middle[161] == [255, 255, 255]


def test_the_mark_moves_from_frame_to_frame():
    annotator = Annotator(make_timeline(), NAMES, 100, 64, 64)
    frame = np.zeros((64, 64, 3), np.uint8)
    places = [np.flatnonzero((annotator.draw(frame, number)[-1] == 255).all(axis=1)).mean() for number in range(100)]
    assert places == sorted(places)
    assert places[0] < 5
    assert places[-1] > 58


def test_all_frames_of_a_video_are_covered_alike():
    annotator = Annotator(make_timeline(), NAMES, 100, 240, 320)
    frame = np.full((240, 320, 3), 255, np.uint8)
    tops = {np.flatnonzero((annotator.draw(frame, number) != 255).any(axis=(1, 2)))[0] for number in range(0, 100, 9)}
    assert len(tops) == 1


def test_two_classes_and_one_are_enough():
    for num_classes in (1, 2):
        probabilities = np.full((1, num_classes), 1 / num_classes, np.float32)
        annotator = Annotator(Timeline(np.array([1.0]), probabilities, 0.0), NAMES[:num_classes], 2, 120, 160)
        assert annotator.draw(np.zeros((120, 160, 3), np.uint8), 1).max() == 255


def test_a_name_that_is_too_long_ends_in_an_ellipsis_within_its_room():
    annotator = Annotator(make_timeline(), NAMES, 100, 240, 320)
    assert annotator._fit("run", 1) == ["run"]
    lines = annotator._fit(" ".join(["passing American football"] * 9), 2)
    assert len(lines) == 2
    assert lines[1].endswith("…")
    assert all(annotator._font.getlength(line) <= annotator._room for line in lines)
    for name in ("x" * 200, NAMES[0], "rotate_counterclockwise_and-then/something else " * 3):
        assert "".join(annotator._break(name)) == name


def test_names_break_at_underscores_rather_than_between_letters():
    annotator = Annotator(make_timeline(), NAMES, 100, 64, 64)
    assert annotator._fit("rotate_clockwise", 3) == ["rotate_", "clockwise"]
    assert annotator._fit("walk the small dog", 3) == ["walk the", "small dog"]


def test_classes_beyond_the_colours_are_gray():
    probabilities = np.full((10, 10), 0.01, np.float32)
    probabilities[np.arange(10), np.arange(10)] = 0.9
    timeline = Timeline(np.arange(5.0, 100, 10), probabilities, 1.0)
    annotator = Annotator(timeline, [str(i) for i in range(10)], 100, 120, 200)
    bar = annotator.draw(np.zeros((120, 200, 3), np.uint8), 0)[-1]
    colors = {tuple(color) for color in bar[20:].tolist()}
    assert len(colors) == 8
    assert (150, 150, 150) in colors
