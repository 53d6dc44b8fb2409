"""Two logical devices train like one device on the same global batches; `tests/conftest.py` splits the CPU."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tf_keras as keras

import vswin
from tests.conftest import make_group
from vswin.data.bad_videos import BadVideos
from vswin.data.folder import load_folder
from vswin.data.order import Order, Shard
from vswin.data.pipeline import make_train_dataset
from vswin.errors import InputError
from vswin.models.zoo import ModelSize
from vswin.runtime import make_strategy, set_precision
from vswin.training.mixing import Mixing
from vswin.training.optimizer import AdamW, ParameterGroup
from vswin.training.run import run_training
from vswin.training.trainer import Trainer

CLIP = make_group("clip", num_frames=4, frame_stride=1, resize=32, crop=32, num_clips=1, num_crops=1, views_per_step=4)
NUM_STEPS, BATCH_SIZE = 20, 4


@pytest.fixture(scope="module")
def train(make_augment) -> Callable[..., tuple]:
    """Takes 20 steps of 4 clips; returns the loss of each, the final weights and the trainer."""
    augment = make_augment(crop_area=[0.3, 1.0], crop_aspect=[0.75, 1.33], flip=0.5)

    def run(videos: Path, strategy_name: str, rate: float = 0.0, **options: object) -> tuple:
        strategy = make_strategy(strategy_name)
        records = load_folder(videos)[1]
        order = Order(1, BATCH_SIZE, NUM_STEPS, shard=Shard(num_replicas=strategy.num_replicas_in_sync))
        with strategy.scope():
            keras.utils.set_random_seed(0)
            size = ModelSize(8, (1, 2), (1, 2), window_size=(2, 2, 3), drop_path_rate=rate)
            model = vswin.build_model(size, num_classes=2, dropout=rate, remat=options.pop("remat", False))
            trainer = Trainer(model, BATCH_SIZE, 3, 0.1, **options)
            groups = {variable.name: ParameterGroup("all", 1.0, 0.05) for variable in model.trainable_variables}
            trainer.compile(optimizer=AdamW(1e-3, groups, clip_norm=1.0))
            trainer.optimizer.build(model.trainable_variables)
        data = strategy.distribute_datasets_from_function(
            lambda _: make_train_dataset(records, CLIP, augment, True, order, BadVideos())
        )
        # Epochs have one step, so the history has the loss of each step.
        history = trainer.fit(data, steps_per_epoch=1, epochs=NUM_STEPS, verbose=0).history
        return history["loss"], [variable.numpy() for variable in model.trainable_variables], trainer

    return run


@pytest.fixture(scope="module")
def on_one_device(train):
    """Trains on one device, once for each rate of dropout and drop path; the videos are always the same."""
    results: dict[float, tuple] = {}

    def get(videos: Path, rate: float) -> tuple:
        if rate not in results:
            results[rate] = train(videos, "one_device", rate)
        return results[rate]

    return get


def test_two_devices_take_the_steps_of_one(train, small_videos, on_one_device):
    """Epochs of 12 videos have no partial batch; dropout and drop path draw the same on both devices."""
    one, weights, _ = on_one_device(small_videos, 0.3)
    two, mirrored_weights, trainer = train(small_videos, "mirrored", 0.3)
    assert trainer.distribute_strategy.num_replicas_in_sync == 2
    assert max(one) - min(one) > 0.05
    np.testing.assert_allclose(two, one, atol=1e-5)
    for a, b in zip(mirrored_weights, weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.slow
def test_erasing_and_mixing_are_the_same_on_two_devices(train, small_videos, on_one_device):
    options = {"erasing": 0.5, "mixing": Mixing(mixup=0.8, cutmix=1.0)}
    one, weights, _ = train(small_videos, "one_device", 0.3, **options)
    two, mirrored_weights, _ = train(small_videos, "mirrored", 0.3, **options)
    assert max(abs(a - b) for a, b in zip(one, on_one_device(small_videos, 0.3)[0], strict=True)) > 0.01
    np.testing.assert_allclose(two, one, atol=1e-5)
    for a, b in zip(mirrored_weights, weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.slow
def test_micro_batches_and_rematerialisation_change_nothing_on_two_devices(train, small_videos, on_one_device):
    one, _, _ = on_one_device(small_videos, 0.3)
    two, _, _ = train(small_videos, "mirrored", 0.3, micro_batches=2, remat=True)
    np.testing.assert_allclose(two, one, atol=1e-5)


@pytest.mark.slow
def test_float16_trains_about_the_same_on_two_devices(train, small_videos, on_one_device):
    expected, _, _ = on_one_device(small_videos, 0.0)
    set_precision("float16")
    losses, _, trainer = train(small_videos, "mirrored")
    np.testing.assert_allclose(losses, expected, atol=0.05)
    assert isinstance(trainer.optimizer, keras.mixed_precision.LossScaleOptimizer)


def test_a_batch_that_the_devices_do_not_divide_is_an_error_with_the_nearest_sizes(compose_train, tmp_path):
    overrides = ("runtime.strategy=mirrored", f"output_dir={tmp_path / 'run'}")
    with pytest.raises(InputError, match=r"batch_size=5 cannot be divided among 2 devices; .*: 4 or 6"):
        run_training(compose_train("batch_size=5", *overrides))
    with pytest.raises(InputError, match=r"batch_size=1 .*: 2$"):
        run_training(compose_train("batch_size=1", *overrides))
    with pytest.raises(InputError, match=r"batch_size=6 .* 2 devices in pairs, which augment\.mixup .*: 4 or 8"):
        run_training(compose_train("batch_size=6", "augment.mixup=0.8", *overrides))
    with pytest.raises(InputError, match=r"batch_size=16 .* augment\.repeats=3 clips of each video; .*: 12 or 18"):
        run_training(compose_train("batch_size=16", "augment.repeats=3", *overrides))
    with pytest.raises(InputError, match=r"2 devices with runtime\.micro_batches=3 each; .*: 12 or 18"):
        run_training(compose_train("batch_size=16", "runtime.micro_batches=3", *overrides))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "options"),
    [("mirrored", {}), ("one_device", {"micro_batches": 2, "remat": True})],
)
def test_compiled_steps_are_those_of_a_run_that_is_not(train, small_videos, on_one_device, strategy, options):
    """With dropout and drop path, whose masks would differ if XLA drew them."""
    plain, weights, _ = on_one_device(small_videos, 0.3)
    compiled, compiled_weights, trainer = train(small_videos, strategy, 0.3, jit=True, **options)
    assert trainer._differentiate.function_spec is not None
    np.testing.assert_allclose(compiled, plain, atol=1e-4)
    for a, b in zip(compiled_weights, weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
