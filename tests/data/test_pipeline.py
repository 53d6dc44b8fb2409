import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import make_group
from vswin.data.bad_videos import BadVideos
from vswin.data.decoders import ExitGate
from vswin.data.frames import FrameLoader
from vswin.data.order import Order, Shard
from vswin.data.pipeline import make_eval_dataset, make_train_dataset, make_val_dataset
from vswin.data.samples import Sample
from vswin.data.views import load_protocol_views
from vswin.errors import InputError

Batch = dict[str, np.ndarray]

CLIP = make_group("clip", num_frames=4, frame_stride=2, resize=40, crop=32, num_clips=2, num_crops=3, views_per_step=6)


@pytest.fixture(scope="module")
def records(write_video) -> list[Sample]:
    """Seven videos of different lengths and shapes; video i has label 10 + i."""
    shapes = [(48, 64), (64, 48), (50, 70), (48, 48), (40, 90), (60, 44), (48, 66)]
    return [
        Sample(write_video(f"record_{index}.avi", 8 + 2 * index, height, width), (10 + index,))
        for index, (height, width) in enumerate(shapes)
    ]


@pytest.fixture
def train(make_augment) -> Callable[..., tf.data.Dataset]:
    """Makes the training data of `CLIP` with random crops and flips: `train(records, order)`."""
    augment = make_augment(crop_area=[0.2, 1.0], crop_aspect=[0.75, 1.33], flip=0.5)

    def make(records: list[Sample], order: Order, bad: BadVideos | None = None) -> tf.data.Dataset:
        return make_train_dataset(records, CLIP, augment, True, order, BadVideos() if bad is None else bad)

    return make


def batches(dataset: tf.data.Dataset) -> list[Batch]:
    return list(dataset.as_numpy_iterator())


def assert_same(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            assert np.array_equal(one[key], other[key]), key


def joined(parts: list[Batch]) -> Batch:
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def test_train_elements_have_static_shapes_and_types(train, records) -> None:
    spec = train(records, Order(seed=1, batch_size=4, epochs=1)).element_spec
    assert spec == {
        "clips": tf.TensorSpec([4, 4, 32, 32, 3], tf.uint8),
        "labels": tf.TensorSpec([4], tf.int32),
        "weights": tf.TensorSpec([4], tf.float32),
        "positions": tf.TensorSpec([4], tf.int32),
        "indices": tf.TensorSpec([4], tf.int32),
    }


def test_every_training_epoch_has_each_video_once_in_another_order(train, records) -> None:
    all_batches = batches(train(records, Order(seed=1, batch_size=4, epochs=3)))
    assert len(all_batches) == 3 * 2
    orders = []
    for epoch in range(3):
        batch = joined(all_batches[2 * epoch : 2 * epoch + 2])
        indices = batch["indices"]
        assert indices[-1] == -1
        assert sorted(indices[:-1].tolist()) == list(range(7))
        assert batch["weights"].tolist() == [1.0] * 7 + [0.0]
        assert batch["positions"].tolist() == [0, 1, 2, 3] * 2
        assert batch["labels"][:-1].tolist() == (10 + indices[:-1]).tolist()
        assert not batch["clips"][-1].any()
        assert batch["clips"][:-1].any(axis=(1, 2, 3, 4)).all()
        orders.append(tuple(indices.tolist()))
    assert len(set(orders)) == 3


def test_same_seed_same_bytes_and_other_seed_other_order(train, records) -> None:
    order = Order(seed=1, batch_size=4, epochs=2)
    assert_same(batches(train(records, order)), batches(train(records, order)))
    other = batches(train(records, Order(seed=2, batch_size=4, epochs=2)))
    assert joined(other)["indices"].tolist() != joined(batches(train(records, order)))["indices"].tolist()


def test_workers_interleave_to_one_and_replicas_get_consecutive_batches(train, records) -> None:
    one = batches(train(records, Order(seed=3, batch_size=4, epochs=2)))
    parts = [
        batches(train(records, Order(3, 4, 2, shard=Shard(num_workers=2, worker=worker, num_replicas=2))))
        for worker in range(2)
    ]
    assert_same(one, [joined(list(pair)) for pair in zip(*parts, strict=True)])
    replicas = batches(train(records, Order(3, 4, 2, shard=Shard(num_replicas=2))))
    assert [len(batch["labels"]) for batch in replicas] == [2] * 8
    assert_same(one, [joined(replicas[start : start + 2]) for start in range(0, 8, 2)])


@pytest.mark.parametrize("shard", [Shard(), Shard(2, 0, 2), Shard(2, 1, 2)])
def test_a_later_start_is_the_tail_of_the_whole(train, records, shard: Shard) -> None:
    whole = batches(train(records, Order(seed=4, batch_size=4, epochs=3, shard=shard)))
    for first_epoch, first_step in ((0, 1), (2, 0), (1, 1)):
        tail = batches(train(records, Order(4, 4, 3, first_epoch, first_step, shard)))
        assert_same(whole[2 * first_epoch + first_step :], tail)


def test_draws_depend_on_the_video_and_the_epoch_not_on_the_batch(train, records) -> None:
    def clips_of(batch_size: int) -> dict[tuple[int, int], bytes]:
        seen = {}
        for epoch in range(2):
            order = Order(seed=5, batch_size=batch_size, epochs=epoch + 1, first_epoch=epoch)
            batch = joined(batches(train(records, order)))
            for index, clip in zip(batch["indices"].tolist(), batch["clips"], strict=True):
                seen[epoch, index] = clip.tobytes()
        return seen

    small, large = clips_of(1), clips_of(7)
    assert small == large
    assert len(small) == 14
    assert all(small[0, index] != small[1, index] for index in (4, 5, 6))


def test_iterator_can_be_saved_and_restored(train, records, tmp_path) -> None:
    dataset = train(records, Order(seed=6, batch_size=2, epochs=2))
    iterator = iter(dataset)
    for _ in range(3):
        next(iterator)
    path = tf.train.Checkpoint(iterator=iterator).save(str(tmp_path / "iterator"))
    rest = [{key: value.numpy() for key, value in batch.items()} for batch in iterator]
    resumed = iter(dataset)
    tf.train.Checkpoint(iterator=resumed).restore(path).assert_consumed()
    assert_same(rest, [{key: value.numpy() for key, value in batch.items()} for batch in resumed])
    assert len(rest) == 5


def test_bad_training_video_keeps_its_slot_without_weight(train, records, bad_files) -> None:
    broken = [*records[:2], Sample(bad_files["truncated avi"], (12,)), Sample(bad_files["empty"], (13,))]
    bad = BadVideos()
    batch = joined(batches(train(broken, Order(seed=1, batch_size=2, epochs=2), bad)))
    for index, label, weight, clip in zip(
        batch["indices"], batch["labels"], batch["weights"], batch["clips"], strict=True
    ):
        assert label == 10 + index
        assert weight == (index < 2)
        assert clip.any() == (index < 2)
    assert len(bad) == 2
    assert sorted(bad.rows()) == sorted(
        [
            (bad_files["truncated avi"], "truncated (147,283 of 294,566 bytes are there)", 2),
            (bad_files["empty"], "empty (0 bytes)", 2),
        ]
    )


def test_eval_counts_every_video_once_and_pads(records) -> None:
    dataset = make_eval_dataset(records, CLIP, 4, BadVideos())
    assert dataset.cardinality() == 2
    assert dataset.element_spec["views"] == tf.TensorSpec([4, 6, 4, 32, 32, 3], tf.uint8)
    batch = joined(batches(dataset))
    assert batch["indices"].tolist() == [0, 1, 2, 3, 4, 5, 6, -1]
    assert batch["labels"][:7].tolist() == [10, 11, 12, 13, 14, 15, 16]
    assert batch["weights"].tolist() == [1.0] * 7 + [0.0]
    for record, views in zip(records, batch["views"], strict=False):
        assert np.array_equal(views, load_protocol_views(record.path, CLIP, FrameLoader()))


@pytest.mark.parametrize("num_workers", [2, 4])
def test_eval_workers_share_without_overlap_and_with_equal_steps(records, num_workers: int) -> None:
    one = batches(make_eval_dataset(records, CLIP, 4, BadVideos()))
    parts = [
        batches(make_eval_dataset(records, CLIP, 4, BadVideos(), Shard(num_workers, worker, num_workers)))
        for worker in range(num_workers)
    ]
    assert {len(part) for part in parts} == {2}
    assert_same(one, [joined(list(group)) for group in zip(*parts, strict=True)])


def test_bad_eval_video_counts_with_label_minus_one(records, bad_files) -> None:
    broken = [records[0], Sample(bad_files["one frame mp4"], (5,)), records[1]]
    bad = BadVideos()
    batch = joined(batches(make_eval_dataset(broken, CLIP, 2, bad)))
    assert batch["labels"][:3].tolist() == [10, -1, 11]
    assert batch["weights"].tolist() == [1.0, 1.0, 1.0, 0.0]
    assert batch["indices"].tolist() == [0, 1, 2, -1]
    assert not batch["views"][1].any()
    assert bad.rows() == [(bad_files["one frame mp4"], "one frame (a still, not a video)", 1)]


def test_validation_is_one_centre_view_in_training_format(train, records) -> None:
    dataset = make_val_dataset(records, CLIP, 4, BadVideos())
    assert dataset.element_spec == train(records, Order(1, 4, 1)).element_spec
    assert dataset.cardinality() == 2
    batch = joined(batches(dataset))
    assert batch["indices"].tolist() == [0, 1, 2, 3, 4, 5, 6, -1]
    one_view = replace(CLIP, num_clips=1, num_crops=1)
    for record, clip in zip(records, batch["clips"], strict=False):
        assert np.array_equal(clip, load_protocol_views(record.path, one_view, FrameLoader())[0])


def test_paths_stay_out_of_the_graph(train, records) -> None:
    many = [Sample(f"some/long/folder/name/video_{index}.mp4", (0,)) for index in range(240_000)]
    dataset = train(many, Order(seed=1, batch_size=8, epochs=1))
    assert b"some/long/folder" not in dataset._as_serialized_graph().numpy()


@pytest.mark.parametrize(
    ("batch_size", "shard"), [(5, Shard(num_replicas=2)), (4, Shard(num_workers=2, worker=1, num_replicas=3))]
)
def test_batch_that_cannot_be_divided_is_refused(train, records, batch_size: int, shard: Shard) -> None:
    with pytest.raises(InputError, match=f"batch_size={batch_size} cannot be divided"):
        make_eval_dataset(records, CLIP, batch_size, BadVideos(), shard)
    with pytest.raises(InputError, match="cannot be divided"):
        train(records, Order(1, batch_size, 1, shard=shard))


def test_process_ends_cleanly_while_clips_are_read_ahead() -> None:
    code = """
import sys
from vswin.config.compose import compose_config
from vswin.config.schema import TrainConfig
from vswin.data.bad_videos import BadVideos
from vswin.data.pipeline import Order, make_train_dataset
from vswin.data.samples import Sample

config = compose_config("train", ["clip.num_frames=4", "clip.crop=32", "augment.crop_area=[0.2,1]"], TrainConfig)
records = [Sample(sys.argv[1], (0,))] * 1000
iterator = iter(make_train_dataset(records, config.clip, config.augment, True, Order(0, 2, 1), BadVideos()))
next(iterator)
raise SystemExit("a run that ends early")
"""
    clip = Path(__file__).parent.parent / "clips" / "demo.mp4"
    done = subprocess.run([sys.executable, "-c", code, str(clip)], capture_output=True, text=True, timeout=120)
    assert done.stderr.splitlines()[-1] == "a run that ends early"
    assert done.returncode == 1


def test_close_waits_for_those_inside_and_turns_others_away() -> None:
    gate = ExitGate()
    is_inside, may_leave = threading.Event(), threading.Event()
    log = []

    def work() -> None:
        with gate.passing() as is_open:
            is_inside.set()
            may_leave.wait(10)
            log.append(("worked", is_open))

    def close() -> None:
        gate.close()
        log.append(("closed", None))

    worker, closer = threading.Thread(target=work), threading.Thread(target=close)
    worker.start()
    assert is_inside.wait(10)
    closer.start()
    closer.join(0.1)
    assert closer.is_alive()
    may_leave.set()
    closer.join(10)
    worker.join(10)
    assert log == [("worked", True), ("closed", None)]
    with gate.passing() as is_open:
        assert not is_open


def test_no_videos_are_refused() -> None:
    with pytest.raises(InputError, match="no videos"):
        make_eval_dataset([], CLIP, 4, BadVideos())


def test_wrong_opencv_is_refused_before_any_thread_starts(records, monkeypatch) -> None:
    def refuse() -> None:
        raise InputError("OpenCV 9")

    monkeypatch.setattr("vswin.data.pipeline.check_opencv", refuse)
    with pytest.raises(InputError, match="OpenCV 9"):
        make_eval_dataset(records, CLIP, 4, BadVideos())


def test_nothing_is_tuned_while_it_runs(records, train):
    """Otherwise a run that ends waits for TensorFlow's tuner, which may sleep for up to a minute."""
    datasets = [
        train(records, Order(seed=0, batch_size=2, epochs=1)),
        make_val_dataset(records, CLIP, 2, BadVideos()),
        make_eval_dataset(records, CLIP, 2, BadVideos()),
    ]
    assert [dataset.options().autotune.enabled for dataset in datasets] == [False, False, False]
