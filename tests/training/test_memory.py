import pytest

from vswin.training.memory import Spared, describe_memory, estimate_step
from vswin.zoo import SIZES, ModelSize, count_parameters

# One stage of one block: 2 x 2 x 2 tokens of 8 channels, all in one window of one head.
SIZE = ModelSize(8, (1,), (1,), window_size=(2, 2, 2))
CLIP = (4, 8, 8)
LOGITS, TOKENS = 8 * 8 * 4, 8 * 8 * 4


def test_tensors_are_counted_by_hand():
    memory = estimate_step(SIZE, 5, CLIP, 3, "float32", remat=False, is_cpu=False)
    assert memory.parameters == 16 * count_parameters(SIZE, 5)
    assert memory.activations == 3 * (LOGITS + 21 * TOKENS)
    assert memory.total == memory.parameters + memory.activations


def test_half_precision_halves_what_is_kept_and_has_the_softmax_at_work_in_float32_too():
    memory = estimate_step(SIZE, 5, CLIP, 1, "bfloat16", remat=False, is_cpu=False)
    assert memory.activations == LOGITS // 2 + 21 * TOKENS // 2
    memory = estimate_step(SIZE, 5, CLIP, 1, "bfloat16", remat=True, is_cpu=False)
    assert memory.activations == TOKENS // 2 + 2 * LOGITS * 6 // 4 + 42 * TOKENS // 2


def test_rematerialisation_keeps_the_input_of_each_block_and_one_block_at_work():
    memory = estimate_step(
        ModelSize(8, (3,), (1,), window_size=(2, 2, 2)), 5, CLIP, 1, "float32", remat=True, is_cpu=False
    )
    assert memory.activations == 3 * TOKENS + 2 * LOGITS + 42 * TOKENS


def test_frozen_weights_need_neither_gradient_nor_moments_and_what_is_below_them_nothing_kept():
    size = ModelSize(8, (2, 1), (1, 1), window_size=(2, 2, 2))
    whole = estimate_step(size, 5, CLIP, 1, "float32", remat=False, is_cpu=False)
    one = estimate_step(size, 5, CLIP, 1, "float32", False, False, Spared(parameters=100, blocks=1))
    assert whole.parameters - one.parameters == 12 * 100
    assert whole.activations - one.activations == LOGITS + 21 * TOKENS
    head = estimate_step(size, 5, CLIP, 1, "float32", False, False, Spared(parameters=100, blocks=3))
    assert head.activations == 2 * LOGITS + 12 * TOKENS


@pytest.mark.parametrize(("spared", "measured"), [(Spared(27_850_470, 12), 0.51), (Spared(1_539_486, 4), 1.41)])
def test_the_estimate_is_near_the_measured_peak_of_a_partly_frozen_swin_tiny(spared, measured):
    """As below, with model.freeze=[backbone.*] and model.freeze_stages=2."""
    memory = estimate_step(SIZES["swin_tiny"], 400, (32, 224, 224), 1, "float32", False, True, spared)
    assert memory.total / 1e9 == pytest.approx(measured, rel=0.15)


@pytest.mark.parametrize(
    ("precision", "remat", "measured"),
    [("float32", False, 2.67), ("float32", True, 1.39), ("bfloat16", False, 1.79), ("bfloat16", True, 1.02)],
)
def test_the_estimate_is_near_the_measured_peak_of_swin_tiny(precision, remat, measured):
    """Measured with `vswin bench step --memory --remat` on one clip of 32 x 224 x 224, in GB, on 2 cores."""
    memory = estimate_step(SIZES["swin_tiny"], 400, (32, 224, 224), 1, precision, remat, is_cpu=True)
    assert memory.total / 1e9 == pytest.approx(measured, rel=0.15)


@pytest.mark.parametrize(("remat", "measured"), [(False, 3.49), (True, 1.82)])
def test_a_gpu_has_the_logits_of_all_windows_at_once(remat, measured):
    """As above, without chunks: no GPU was there to measure."""
    memory = estimate_step(SIZES["swin_tiny"], 400, (32, 224, 224), 1, "float32", remat, is_cpu=False)
    assert memory.total / 1e9 == pytest.approx(measured, rel=0.15)


def test_a_cpu_keeps_no_logits_but_those_of_a_window_at_work_and_some_tokens_more():
    window = 6 * 8 * 8 * 4
    memory = estimate_step(SIZE, 5, CLIP, 3, "float32", remat=False, is_cpu=True)
    assert memory.activations == 3 * 25 * TOKENS + window
    memory = estimate_step(SIZE, 5, CLIP, 3, "float32", remat=True, is_cpu=True)
    assert memory.activations == 3 * (1 + 42) * TOKENS + window


def test_only_the_memory_of_a_machine_without_gpu_is_compared():
    memory = estimate_step(SIZES["swin_large"], 400, (32, 224, 224), 10_000, "float32", remat=False, is_cpu=False)
    assert "runtime.remat=true" in describe_memory(memory, 1, is_cpu=True)
    assert "that are free" not in describe_memory(memory, 1, is_cpu=False)
