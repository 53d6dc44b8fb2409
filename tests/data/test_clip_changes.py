import numpy as np

from vswin.data.transforms import Box
from vswin.data.views import apply_changes, draw_changes

BOX = Box(2, 3, 20, 30)


def test_what_is_off_draws_nothing(make_augment):
    """A recipe of box and flip alone meets the draws that it has always met."""
    augment = make_augment(flip=0.5)
    rng, by_hand = np.random.default_rng(7), np.random.default_rng(7)
    is_flipped = bool(by_hand.random() < 0.5)
    assert draw_changes(BOX, augment, True, rng) == (BOX, is_flipped, [])
    assert rng.random() == by_hand.random()


def test_color_jitter_comes_before_rand_augment_and_both_after_the_crop(make_augment):
    augment = make_augment(color_jitter=[0.2, 0, 0, 0], rand_augment="no_flip", rand_augment_ops=2)
    changes = draw_changes(BOX, augment, False, np.random.default_rng(0))
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
        changes = draw_changes(BOX, augment, False, np.random.default_rng(seed))
        assert not changes.is_flipped
        return any("mirrored" in operation.text for operation in changes.operations)

    assert 30 < sum(mirrored("official", seed) for seed in range(100)) < 70
    assert not any(mirrored("no_flip", seed) for seed in range(100))
