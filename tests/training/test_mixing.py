"""What a training step does to clips: mixup and cutmix by hand, and random erasing."""

import numpy as np
import pytest
import tensorflow as tf

from vswin.training.mixing import (
    MixDraws,
    Mixing,
    erase,
    keep_uncounted,
    main_labels,
    make_erasing_boxes,
    make_mix_draws,
    mix_clips,
    mix_targets,
    swap,
)

HEIGHT, WIDTH = 40, 60


def draw(num_clips: int, mixing: Mixing, step: int = 0) -> MixDraws:
    draws = make_mix_draws(5, step, tf.range(num_clips), num_clips, (HEIGHT, WIDTH), mixing)
    return MixDraws(*(values.numpy() for values in draws))


def by_hand(share: list[float], blend: list[float], box: list[list[int]]) -> MixDraws:
    return MixDraws(tf.constant(share), tf.constant(blend), tf.constant(box))


@pytest.mark.parametrize("alpha", [0.05, 0.8, 2.0])
def test_shares_of_mixup_follow_the_beta_distribution(alpha):
    share, blend, box = draw(8000, Mixing(mixup=alpha))
    assert (share == blend).all()
    assert not box.any()
    assert np.isfinite(share).all()
    assert abs(share.mean() - 0.5) < 0.03
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(share.var() / variance - 1) < 0.08


def test_the_share_of_cutmix_is_what_its_box_leaves():
    share, blend, box = draw(4000, Mixing(cutmix=1.0))
    top, left, height, width = box.T
    assert (blend == 1).all()
    assert (top >= 0).all()
    assert (left + width <= WIDTH).all()
    np.testing.assert_allclose(share, 1 - height * width / (HEIGHT * WIDTH), atol=1e-6)
    # The expected area is that of a uniform share, minus what the edges cut off.
    assert 0.5 < share.mean() < 0.75
    assert top.max() > HEIGHT / 2


def test_with_both_on_each_pair_draws_one_of_them():
    share, blend, _ = draw(4000, Mixing(mixup=0.8, cutmix=1.0))
    is_cutmix = (blend == 1) & (share < 1)
    assert abs(is_cutmix.mean() - 0.5) < 0.05
    assert (share[~is_cutmix] == blend[~is_cutmix]).mean() > 0.95


def test_draws_are_bit_equal_for_any_number_of_replicas_and_differ_by_step():
    mixing = Mixing(mixup=0.8, cutmix=1.0)
    whole = draw(8, mixing)
    for size in (2, 4):
        parts = [
            make_mix_draws(5, 0, tf.range(start, start + size), 8, (HEIGHT, WIDTH), mixing)
            for start in range(0, 8, size)
        ]
        for values, pieces in zip(whole, zip(*parts, strict=True), strict=True):
            assert np.concatenate(pieces).tobytes() == values.tobytes()
    for values in whole:  # partners have the same draws
        assert values[::2].tolist() == values[1::2].tolist()
    assert draw(8, mixing, step=1).share.tolist() != whole.share.tolist()


def test_compiled_draws_are_those_of_eager_execution():
    mixing = Mixing(mixup=0.8, cutmix=1.0)
    compiled = tf.function(lambda step: make_mix_draws(5, step, tf.range(8), 8, (HEIGHT, WIDTH), mixing))
    for values, expected in zip(compiled(tf.constant(3)), draw(8, mixing, step=3), strict=True):
        assert values.numpy().tobytes() == expected.tobytes()


def test_mixup_blends_pixels_and_targets_of_neighbours():
    clips = tf.constant([0.0, 1.0, 2.0, 6.0])[:, None, None, None, None] * tf.ones([4, 2, 3, 5, 3])
    draws = by_hand([0.75, 0.75, 0.5, 0.5], [0.75, 0.75, 0.5, 0.5], [[0] * 4] * 4)
    mixed = mix_clips(clips, draws)
    assert mixed[:, 0, 0, 0, 0].numpy().tolist() == [0.25, 0.75, 4.0, 4.0]
    assert (mixed == mixed[:, :1, :1, :1, :1]).numpy().all()
    targets = mix_targets(tf.one_hot([0, 1, 2, 2], 3), draws)
    assert targets.numpy().tolist() == [[0.75, 0.25, 0], [0.25, 0.75, 0], [0, 0, 1], [0, 0, 1]]


def test_cutmix_exchanges_the_same_box_of_all_frames():
    clips = np.random.default_rng(0).normal(size=(2, 3, 6, 8, 3)).astype(np.float32)
    mixed = mix_clips(tf.constant(clips), by_hand([0.75] * 2, [1.0] * 2, [[1, 2, 3, 4]] * 2))
    expected = clips.copy()
    expected[:, :, 1:4, 2:6] = clips[::-1, :, 1:4, 2:6]
    assert mixed.numpy().tolist() == expected.tolist()


def test_the_label_with_the_larger_share_counts():
    draws = by_hand([0.4, 0.4, 0.5, 0.5], [1.0] * 4, [[0] * 4] * 4)
    assert main_labels(tf.constant([7, 8, 9, 10]), draws).numpy().tolist() == [8, 7, 9, 10]


def test_padding_and_its_partner_are_left_alone():
    draws = by_hand([0.4] * 6, [0.4] * 6, [[1, 1, 2, 2]] * 6)
    kept = keep_uncounted(draws, tf.constant([1.0, 1.0, 1.0, 0.0, 0.0, 0.0]))
    assert kept.share.numpy().tolist() == pytest.approx([0.4, 0.4, 1, 1, 1, 1])
    assert kept.blend.numpy().tolist() == pytest.approx([0.4, 0.4, 1, 1, 1, 1])
    assert kept.box.numpy()[2:].tolist() == [[0] * 4] * 4
    clips = tf.constant(np.random.default_rng(0).normal(size=(6, 1, 4, 4, 3)), tf.float32)
    assert mix_clips(clips, kept).numpy()[2:].tolist() == clips.numpy()[2:].tolist()


def test_off_is_off_and_swapping_twice_changes_nothing():
    share, blend, box = draw(3, Mixing())
    assert (share.tolist(), blend.tolist(), box.any()) == ([1, 1, 1], [1, 1, 1], False)
    values = tf.reshape(tf.range(12), [4, 3])
    assert swap(values)[:, 0].numpy().tolist() == [3, 0, 9, 6]
    assert swap(swap(values)).numpy().tolist() == values.numpy().tolist()


HEIGHT, WIDTH = 120, 200


def draw_boxes(num_clips: int, probability: float, step: int = 0) -> np.ndarray:
    return make_erasing_boxes(1, step, tf.range(num_clips), num_clips, (HEIGHT, WIDTH), probability).numpy()


def test_boxes_have_the_geometry_of_timm():
    boxes = draw_boxes(4000, 1.0)
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
    # The position of a box is uniform over all positions where it fits.
    place = (top / np.maximum(HEIGHT - height, 1))[erased]
    assert abs(place.mean() - 0.5) < 0.03


def test_the_probability_is_the_share_of_clips_with_a_box():
    assert abs((draw_boxes(4000, 0.25)[:, 2] > 0).mean() - 0.25) < 0.035
    assert draw_boxes(100, 0.0).tolist() == [[0] * 4] * 100


def test_draws_follow_the_step_and_the_position_alone():
    whole = draw_boxes(8, 1.0)
    parts = [
        make_erasing_boxes(1, 0, tf.constant(positions), 8, (HEIGHT, WIDTH), 1.0).numpy()
        for positions in ([0, 1, 2, 3], [4, 5, 6, 7])
    ]
    assert np.concatenate(parts).tolist() == whole.tolist()
    assert draw_boxes(8, 1.0, step=1).tolist() != whole.tolist()
    assert len({tuple(box) for box in whole.tolist()}) == 8


def test_a_box_becomes_the_mean_colour_in_all_frames():
    clips = tf.constant(np.random.default_rng(0).normal(1, 0.1, (2, 3, 6, 8, 3)), tf.float16)
    erased = erase(clips, tf.constant([[1, 2, 3, 4], [0, 0, 0, 0]]))
    expected = clips.numpy()
    expected[0, :, 1:4, 2:6] = 0
    assert erased.dtype == tf.float16
    assert erased.numpy().tolist() == expected.tolist()
