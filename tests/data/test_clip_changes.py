import pickle

import numpy as np

from vswin.data.clip_changes import BoxDraw, apply_changes, draw_changes
from vswin.data.transforms import random_resized_crop_box


def test_what_is_off_draws_nothing(make_augment):
    """A recipe of box and flip alone meets the draws that it has always met."""
    augment = make_augment(crop_area=[0.1, 1.0], crop_aspect=[0.75, 1.33], flip=0.5)
    rng, by_hand = np.random.default_rng(7), np.random.default_rng(7)
    box = random_resized_crop_box(40, 60, augment.crop_area, augment.crop_aspect, by_hand)
    is_flipped = bool(by_hand.random() < 0.5)
    assert draw_changes(40, 60, augment, True, rng) == (box, is_flipped, [])
    assert rng.random() == by_hand.random()


def test_color_jitter_comes_before_rand_augment_and_both_after_the_crop(make_augment):
    augment = make_augment(color_jitter=[0.2, 0, 0, 0], rand_augment="no_flip", rand_augment_ops=2)
    changes = draw_changes(40, 60, augment, False, np.random.default_rng(0))
    texts = [operation.text for operation in changes.operations]
    assert len(texts) == 4
    assert texts[0].startswith("brightness jittered")
    assert texts[1].startswith("sides cut")
    frames = np.random.default_rng(0).integers(0, 256, (3, 40, 60, 3), np.uint8)
    changed = apply_changes(frames, changes)
    assert (changed.shape, changed.dtype) == (frames.shape, np.uint8)


def test_rand_augment_as_officially_mirrors_although_the_data_set_allows_no_flip(make_augment):
    def mirrored(preset: str, seed: int) -> bool:
        augment = make_augment(rand_augment=preset, flip=0.5)
        changes = draw_changes(40, 60, augment, False, np.random.default_rng(seed))
        assert not changes.is_flipped
        return any("mirrored" in operation.text for operation in changes.operations)

    assert 30 < sum(mirrored("official", seed) for seed in range(100)) < 70
    assert not any(mirrored("no_flip", seed) for seed in range(100))


def test_the_box_is_known_before_it_is_drawn(make_augment):
    augment = make_augment(crop_area=[0.1, 1.0], crop_aspect=[0.75, 1.33], flip=0.5)
    rng = np.random.default_rng(7)
    draw_box = pickle.loads(pickle.dumps(BoxDraw(augment, rng)))
    boxes = [draw_box(40, 60), draw_box(40, 60), draw_changes(40, 60, augment, True, rng).box]
    assert boxes[0] == boxes[1] == boxes[2]
    assert boxes[0] != draw_changes(40, 60, augment, True, rng).box
