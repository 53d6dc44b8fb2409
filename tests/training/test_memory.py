import pytest

from vswin.training.memory import describe_memory, estimate_step
from vswin.zoo import SIZES, ModelSize, count_parameters

# One stage of one block: 2 x 2 x 2 tokens of 8 channels, all in one window of one head.
SIZE = ModelSize(8, (1,), (1,), window_size=(2, 2, 2))
CLIP = (4, 8, 8)
LOGITS, TOKENS = 8 * 8 * 4, 8 * 8 * 4


def test_tensors_are_counted_by_hand():
    memory = estimate_step(SIZE, 5, CLIP, 3, "float32", remat=False)
    assert memory.parameters == 16 * count_parameters(SIZE, 5)
    assert memory.activations == 3 * (LOGITS + 31 * TOKENS)
    assert memory.total == memory.parameters + memory.activations


def test_half_precision_halves_tokens_and_keeps_the_softmax_in_float32():
    memory = estimate_step(SIZE, 5, CLIP, 1, "bfloat16", remat=False)
    assert memory.activations == LOGITS * 6 // 4 + 31 * TOKENS // 2


def test_rematerialisation_keeps_the_input_of_each_block_and_one_block_at_work():
    memory = estimate_step(ModelSize(8, (3,), (1,), window_size=(2, 2, 2)), 5, CLIP, 1, "float32", remat=True)
    assert memory.activations == 3 * TOKENS + 2 * LOGITS + 37 * TOKENS


@pytest.mark.parametrize(("remat", "measured"), [(False, 4.53), (True, 1.84)])
def test_the_estimate_is_near_the_measured_peak_of_swin_tiny(remat, measured):
    """Measured with benchmarks/memory.py on one clip of 32 x 224 x 224, in GB."""
    memory = estimate_step(SIZES["swin_tiny"], 400, (32, 224, 224), 1, "float32", remat)
    assert memory.total / 1e9 == pytest.approx(measured, rel=0.15)


def test_only_the_memory_of_a_machine_without_gpu_is_compared():
    memory = estimate_step(SIZES["swin_large"], 400, (32, 224, 224), 10_000, "float32", remat=False)
    assert "runtime.remat=true" in describe_memory(memory, 1, is_cpu=True)
    assert "that are free" not in describe_memory(memory, 1, is_cpu=False)
