import numpy as np
import pytest

from tests.conftest import make_group
from vswin.data.bad_videos import BadVideos
from vswin.data.order import Order, Shard, batch_indices, batch_samples, clip_generator, count_steps
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
        assert batch_indices(5, order, 0, step) == batch["indices"].tolist()


def test_an_epoch_of_repeats_has_as_many_steps_as_clips_need():
    assert [count_steps(5, 6, repeats) for repeats in (1, 2, 3, 6)] == [1, 2, 3, 5]


def test_the_copies_of_a_video_share_a_batch_and_neighbours_differ():
    order = Order(seed=3, batch_size=8, epochs=2, repeats=4)
    seen = [batch_indices(5, order, 0, step) for step in range(count_steps(5, 8, 4))]
    assert sorted(index for batch in seen for index in batch) == [-1] * 4 + [i for i in range(5) for _ in range(4)]
    for batch in seen:
        assert batch == batch[:2] * 4
        assert all(batch[p] != batch[p ^ 1] for p in range(8))
    assert batch_indices(5, order, 1, 0) != seen[0]
    odd = batch_indices(9, Order(seed=3, batch_size=6, epochs=1, repeats=2), 0, 0)
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
