import dataclasses
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import make_group
from vswin.data.bad_videos import BadVideos
from vswin.data.order import (
    Order,
    Shard,
    batch_indices,
    batch_samples,
    clip_generator,
    count_steps,
    make_slots,
    order_samples,
)
from vswin.data.pipeline import make_train_dataset
from vswin.data.samples import Sample
from vswin.errors import InputError

CLIP = make_group("clip", num_frames=2, frame_stride=2, resize=40, crop=32)


@pytest.fixture(scope="module")
def records(write_video) -> list[Sample]:
    return [Sample(write_video(f"repeated_{index}.avi", 20, 48, 70), (index,)) for index in range(5)]


@pytest.fixture
def load(make_augment):
    augment = make_augment(crop_area=[0.1, 1.0], crop_aspect=[0.75, 1.33])

    def run(records: list[Sample], order: Order) -> list[dict[str, np.ndarray]]:
        dataset = make_train_dataset(records, CLIP, augment, False, order, BadVideos())
        return list(dataset.as_numpy_iterator())

    return run


@pytest.mark.parametrize("repeats", [1, 2])
def test_the_videos_of_a_step_are_named(records, load, repeats: int):
    order = Order(seed=2, batch_size=4, epochs=1, repeats=repeats)
    for step, batch in enumerate(load(records, order)):
        expected = [records[index] for index in batch["indices"] if index >= 0]
        assert batch_samples(records, order, 0, step) == expected
        assert batch_indices(records, order, 0, step) == batch["indices"].tolist()


def test_an_epoch_of_repeats_has_as_many_steps_as_clips_need():
    assert [count_steps(5, 6, repeats) for repeats in (1, 2, 3, 6)] == [1, 2, 3, 5]


def test_the_copies_of_a_video_share_a_batch_and_neighbours_differ():
    order = Order(seed=3, batch_size=8, epochs=2, repeats=4)
    nine = [Sample(str(number), (number,)) for number in range(9)]
    seen = [batch_indices(nine[:5], order, 0, step) for step in range(count_steps(5, 8, 4))]
    assert sorted(index for batch in seen for index in batch) == [-1] * 4 + [i for i in range(5) for _ in range(4)]
    for batch in seen:
        assert batch == batch[:2] * 4
        assert all(batch[p] != batch[p ^ 1] for p in range(8))
    assert batch_indices(nine[:5], order, 1, 0) != seen[0]
    odd = batch_indices(nine, Order(seed=3, batch_size=6, epochs=1, repeats=2), 0, 0)
    assert odd == odd[:3] * 2
    assert all(odd[p] != odd[p ^ 1] for p in range(6))


def test_the_copies_draw_for_themselves_and_the_first_as_without_repeats(records, load):
    once = load(records, Order(seed=2, batch_size=2, epochs=1))
    twice = load(records, Order(seed=2, batch_size=4, epochs=1, repeats=2))
    assert len(once) == len(twice) == 3
    for single, double in zip(once, twice, strict=True):
        assert (double["clips"][:2] == single["clips"]).all()
        assert double["indices"].tolist() == single["indices"].tolist() * 2
        assert double["positions"].tolist() == [0, 1, 2, 3]
        for first, second, index in zip(double["clips"][:2], double["clips"][2:], single["indices"], strict=True):
            assert (first == second).all() == (index == -1)


def test_workers_and_resumed_runs_see_the_same_repeats(records, load):
    whole = load(records, Order(seed=2, batch_size=4, epochs=2, repeats=2))
    tail = load(records, Order(seed=2, batch_size=4, epochs=2, first_step=2, repeats=2))
    parts = [load(records, Order(2, 4, 2, 0, 0, Shard(2, worker, 2), 2)) for worker in range(2)]
    for key in whole[0]:
        for one, other in zip(whole[2:], tail, strict=True):
            assert np.array_equal(one[key], other[key])
        for one, first, second in zip(whole, *parts, strict=True):
            assert np.array_equal(one[key], np.concatenate([first[key], second[key]]))


def test_a_batch_that_repeats_do_not_divide_is_refused(records, load):
    with pytest.raises(InputError, match=r"batch_size=4 .*augment\.repeats=3 clips of each video; .*: 3 or 6"):
        load(records, Order(seed=2, batch_size=4, epochs=1, repeats=3))


def test_generators_of_clips_are_independent():
    keys = [(1, 0, 0), (1, 0, 1), (1, 1, 0), (2, 0, 0), (1, 0, 0, 1), (1, 0, 0, 2)]
    assert len({clip_generator(*key).integers(2**60) for key in keys}) == 6
    assert clip_generator(5, 6, 7).random() == np.random.default_rng([5, 6, 7]).random()


def test_balanced_epochs_take_each_class_equally_often_and_each_sample_in_turn():
    """Fifteen samples, 11, 3 and 1 of a class, in batches of 4."""
    labels = [0, 2, 2, 5, *[0] * 10, 2]
    samples = [Sample(str(number), (label,)) for number, label in enumerate(labels)]
    order = Order(seed=3, batch_size=4, epochs=9, balance=True)
    epochs = [_flat(samples, order, epoch) for epoch in range(9)]
    drawn = []
    for epoch in epochs:
        assert epoch[15:] == [-1]
        drawn += epoch[:15]
        counts = Counter(labels[index] for index in epoch[:15])
        assert sorted(counts.values()) == [5, 5, 5]
    uses = Counter(drawn)
    for label in (0, 2, 5):
        of_class = [uses[index] for index in range(15) if labels[index] == label]
        assert sum(of_class) == 45
        assert max(of_class) - min(of_class) <= 1
    assert len({tuple(epoch) for epoch in epochs}) == 9
    # With 16 samples, the class that comes once more changes from epoch to epoch.
    samples.append(Sample("15", (5,)))
    firsts = [
        Counter(labels[index] if index < 15 else 5 for index in _flat(samples, order, epoch)) for epoch in range(3)
    ]
    assert [sorted(counts.values()) for counts in firsts] == [[5, 5, 6]] * 3
    assert sum(firsts, Counter()) == {0: 16, 2: 16, 5: 16}


def _flat(samples: list[Sample], order: Order, epoch: int) -> list[int]:
    return [index for step in range(4) for index in batch_indices(samples, order, epoch, step)]


@pytest.mark.parametrize("repeats", [1, 2])
def test_balanced_clips_are_the_same_on_two_workers_and_after_a_resume_and_draw_for_themselves(records, load, repeats):
    labelled = [sample._replace(labels=(int(number > 0),)) for number, sample in enumerate(records)]
    order = Order(seed=2, batch_size=4, epochs=3, repeats=repeats, balance=True)
    whole = load(labelled, order)
    steps = count_steps(5, 4, repeats)
    tail = load(labelled, dataclasses.replace(order, first_epoch=1, first_step=1))
    parts = [load(labelled, dataclasses.replace(order, shard=Shard(2, worker, 2))) for worker in range(2)]
    for key in whole[0]:
        for one, other in zip(whole[steps + 1 :], tail, strict=True):
            assert np.array_equal(one[key], other[key])
        for one, first, second in zip(whole, *parts, strict=True):
            assert np.array_equal(one[key], np.concatenate([first[key], second[key]]))
    for number, batch in enumerate(whole):
        assert batch_indices(labelled, order, *divmod(number, steps)) == batch["indices"].tolist()
    # Sample 0 is alone in its class; each of its clips in an epoch has a number of its own, and so its own draws.
    epoch = tf.constant(0, tf.int64)
    slots = make_slots(order_samples(labelled, order, epoch), epoch, 4, order.shard, repeats)
    numbers = [int(number) for index, _, _, number in slots if index == 0]
    assert len(numbers) >= 2 * repeats
    assert numbers == list(range(len(numbers)))
