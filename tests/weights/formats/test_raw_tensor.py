import numpy as np
import pytest

from vswin.weights.formats.raw_tensor import MalformedError, RawTensor, Storage, is_count, to_native, view_tensors

BYTES = np.arange(24, dtype="<f4").view(np.uint8)
STORAGE = Storage("0", "float32", 24)


def view(offset, shape, strides, element="float32", storage=STORAGE):
    return view_tensors({"x": RawTensor(storage, element, offset, shape, strides)}, lambda asked: BYTES)["x"]


def test_views_share_the_bytes_of_the_storage():
    array = view(4, (2, 3), (3, 1))
    np.testing.assert_array_equal(array, [[4, 5, 6], [7, 8, 9]])
    assert np.shares_memory(array, BYTES)
    assert not array.flags.writeable


def test_strides_and_offsets_count_elements():
    np.testing.assert_array_equal(view(1, (3, 2), (1, 6)), [[1, 7], [2, 8], [3, 9]])
    np.testing.assert_array_equal(view(23, (1, 1, 2), (10**9, 2**61, 0)), [[[23, 23]]])
    assert view(23, (), ()).shape == ()
    assert view(23, (), ()) == 23


def test_a_tensor_without_elements_needs_no_bytes():
    array = view_tensors(
        {"x": RawTensor(Storage("0", "float64", 0), "float64", 0, (2, 0, 3), (3, 3, 1))}, lambda _: BYTES[:0]
    )["x"]
    assert (array.shape, array.dtype) == ((2, 0, 3), np.float64)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (25,), (1,)),
        (24, (), ()),
        (1, (24,), (1,)),
        (0, (2, 13), (12, 1)),
        (0, (2,), (24,)),
        (2**61, (2,), (1,)),
        (0, (2, 2), (2**61, 2**61)),
    ],
)
def test_no_view_leaves_its_storage(offset, shape, strides):
    with pytest.raises(MalformedError, match="'x' reaches element"):
        view(offset, shape, strides)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (-1, (2,), (1,)),
        (0, (-2,), (1,)),
        (0, (2,), (-1,)),
        (0, (2, 2), (1,)),
        (2**62, (2,), (1,)),
        (0, (2**62,), (0,)),
        (0, (2**40, 2**40), (0, 0)),
        (0, (0, 2**61), (1, 1)),
        (0, (1,) * 33, (1,) * 33),
        (True, (2,), (1,)),
        (0, (2.0,), (1,)),
    ],
)
def test_impossible_shapes_are_refused(offset, shape, strides):
    with pytest.raises(MalformedError, match="impossible"):
        view(offset, shape, strides)


def test_few_bytes_do_not_unfold_to_many():
    assert view(3, (1000, 100), (0, 0)).sum() == 300_000
    with pytest.raises(MalformedError, match=r"unfold 96 stored bytes to 4000000, over 4 times"):
        view(3, (1000, 1000), (0, 0))
    whole = RawTensor(STORAGE, "float32", 0, (24,), (1,))
    with pytest.raises(MalformedError, match="unfold 96 stored bytes to 1056000"):
        view_tensors({f"x{number}": whole for number in range(11_000)}, lambda _: BYTES)


def test_untyped_storages_count_bytes():
    storage = Storage("0", "untyped", 96)
    np.testing.assert_array_equal(view(1, (2,), (1,), "float32", storage), [1, 2])
    with pytest.raises(MalformedError, match="reaches element 48"):
        view(0, (49,), (1,), "uint16", storage)


def test_bfloat16_widens_exactly():
    values = np.array([1.0, -2.5, 3e38, -0.0, np.inf, np.nan], np.float32)
    halves = (values.view(np.uint32) >> 16).astype(np.uint16)
    wide = to_native(halves, "bfloat16")
    assert wide.dtype == np.float32
    np.testing.assert_array_equal(wide.view(np.uint32) >> 16, halves)
    np.testing.assert_array_equal(wide.view(np.uint32) & 0xFFFF, 0)
    scalar = to_native(np.array(halves[1]), "bfloat16")
    assert isinstance(scalar, np.ndarray)
    assert scalar == -2.5
    np.testing.assert_array_equal(to_native(halves.reshape(2, 3).T, "bfloat16"), wide.reshape(2, 3).T)


def test_any_byte_but_zero_is_true():
    array = to_native(np.array([0, 1, 255], np.uint8), "bool")
    assert array.dtype == bool
    assert array.tolist() == [False, True, True]
    assert isinstance(to_native(np.array(2, np.uint8), "bool"), np.ndarray)


def test_counts_are_plain_integers_that_memory_could_hold():
    assert is_count(0)
    assert is_count(2**61)
    assert not any(is_count(value) for value in (-1, 2**62, 10**100, True, 1.0, "1", None))
