import numpy as np
import tensorflow as tf

from vswin.training.mixing import erase, make_erasing_boxes

HEIGHT, WIDTH = 120, 200


def draw(num_clips: int, probability: float, step: int = 0) -> np.ndarray:
    return make_erasing_boxes(1, step, tf.range(num_clips), num_clips, (HEIGHT, WIDTH), probability).numpy()


def test_boxes_have_the_geometry_of_timm():
    boxes = draw(4000, 1.0)
    top, left, height, width = boxes.T
    erased = height > 0
    assert erased.mean() > 0.99
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= HEIGHT).all()
    assert (left + width <= WIDTH).all()
    area = (height * width / (HEIGHT * WIDTH))[erased]
    aspect = (height / np.maximum(width, 1))[erased]
    assert 0.015 < area.min() < 0.025
    assert 0.32 < area.max() < 0.34
    assert 0.28 < aspect.min() < 0.32
    assert aspect.max() < 3.5
    assert abs(np.median(np.log(aspect))) < 0.1
    # Wherever a box is, its place is uniform over what is left.
    place = (top / np.maximum(HEIGHT - height, 1))[erased]
    assert abs(place.mean() - 0.5) < 0.03


def test_the_probability_is_the_share_of_clips_with_a_box():
    assert abs((draw(4000, 0.25)[:, 2] > 0).mean() - 0.25) < 0.035
    assert draw(100, 0.0).tolist() == [[0] * 4] * 100


def test_draws_follow_the_step_and_the_position_alone():
    whole = draw(8, 1.0)
    parts = [
        make_erasing_boxes(1, 0, tf.constant(positions), 8, (HEIGHT, WIDTH), 1.0).numpy()
        for positions in ([0, 1, 2, 3], [4, 5, 6, 7])
    ]
    assert np.concatenate(parts).tolist() == whole.tolist()
    assert draw(8, 1.0, step=1).tolist() != whole.tolist()
    assert len({tuple(box) for box in whole.tolist()}) == 8


def test_a_box_becomes_the_mean_colour_in_all_frames():
    clips = tf.constant(np.random.default_rng(0).normal(1, 0.1, (2, 3, 6, 8, 3)), tf.float16)
    erased = erase(clips, tf.constant([[1, 2, 3, 4], [0, 0, 0, 0]]))
    expected = clips.numpy()
    expected[0, :, 1:4, 2:6] = 0
    assert erased.dtype == tf.float16
    assert erased.numpy().tolist() == expected.tolist()
