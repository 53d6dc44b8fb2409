import pickle

import pytest

from vswin.weights.formats.raw_tensor import MalformedError, RawTensor, Storage
from vswin.weights.formats.restricted_pickle import RefusedGlobalError, unpickle
from vswin.weights.formats.torch_pickle import TORCH

STORAGE = ("storage", b"ctorch\nFloatStorage\n", "0", "cpu", 24)


def encode(value) -> bytes:
    """Writes a value without the frame of a pickle; bytes stand for themselves."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, tuple):
        return b"(" + b"".join(encode(item) for item in value) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(encode(item) for item in value) + b"e"
    return pickle.dumps(value, 2)[2:-1]


def read(*parts):
    return unpickle(memoryview(b"\x80\x02" + b"".join(encode(part) for part in parts) + b"."), 0, TORCH)[0]


def stored(persistent_id=STORAGE) -> bytes:
    return encode(persistent_id) + b"Q"


def rebuilt(args, function=b"ctorch._utils\n_rebuild_tensor_v2\n") -> bytes:
    return function + encode(args) + b"R"


GOOD = (stored(), 2, (2, 3), (3, 1), False, rebuilt((), b"ccollections\nOrderedDict\n"))
TENSOR = RawTensor(Storage("0", "float32", 24), "float32", 2, (2, 3), (3, 1))


def test_tensors_become_descriptions():
    assert read(rebuilt(GOOD)) == TENSOR
    assert read(rebuilt((*GOOD, {"metadata": 1}))) == TENSOR
    assert read(rebuilt(GOOD[:4], b"ctorch._utils\n_rebuild_tensor\n")) == TENSOR
    assert read(rebuilt((rebuilt(GOOD), True, None), b"ctorch._utils\n_rebuild_parameter\n")) == TENSOR
    with_state = rebuilt((rebuilt(GOOD), True, None, {}), b"ctorch._utils\n_rebuild_parameter_with_state\n")
    assert read(with_state) == TENSOR
    from_type = (b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nTensor\n", GOOD, {"note": 1})
    for function in (b"ctorch._tensor\n_rebuild_from_type_v2\n", b"ctorch.tensor\n_rebuild_from_type\n"):
        assert read(rebuilt(from_type, function)) == TENSOR


def test_storages_of_gpus_and_of_the_legacy_format_are_known():
    assert read(stored(("storage", b"ctorch.cuda\nHalfStorage\n", "7", "cuda:0", 3, None))) == Storage(
        "7", "float16", 3
    )


def test_an_untyped_storage_gets_its_type_from_the_tensor():
    storage = stored(("storage", b"ctorch.storage\nUntypedStorage\n", "0", "cpu", 24))
    v3 = b"ctorch._utils\n_rebuild_tensor_v3\n"
    made = read(rebuilt((storage, 0, (12,), (1,), False, None, b"ctorch\nuint16\n"), v3))
    assert (made.element, made.storage.element) == ("uint16", "untyped")
    with pytest.raises(MalformedError, match="unknown dtype"):
        read(rebuilt((storage, 0, (12,), (1,), False, None, "uint16"), v3))
    with pytest.raises(MalformedError, match="typed storage"):
        read(rebuilt((storage, 0, (12,), (1,), False, None)))


def test_ordered_dicts_of_python_2_hold_pairs():
    assert read(rebuilt(([["a", 1], ["b", 2], [3, 4]],), b"ccollections\nOrderedDict\n")) == {"a": 1, "b": 2}
    with pytest.raises(MalformedError, match="pairs"):
        read(rebuilt((["ab"],), b"ccollections\nOrderedDict\n"))


def test_a_size_is_its_tuple():
    assert read(rebuilt(((1, 2),), b"ctorch\nSize\n")) == (1, 2)
    with pytest.raises(MalformedError):
        read(rebuilt(("12",), b"ctorch\nSize\n"))


HISTORY = b"cmmengine.logging.history_buffer\nHistoryBuffer\n"
GETATTR = b"c__builtin__\ngetattr\n"


def test_getattr_stands_for_four_methods_and_nothing_else():
    for method in ("min", "max", "mean", "current"):
        read(rebuilt((HISTORY, method), GETATTR))
    for args in [
        (HISTORY, "__init__"),
        (HISTORY, "min", 1),
        (HISTORY,),
        (),
        (b"ctorch\nTensor\n", "min"),
        (rebuilt((), HISTORY), "min"),
        (GETATTR, "__globals__"),
        ("mmengine.logging.history_buffer.HistoryBuffer", "min"),
    ]:
        with pytest.raises(RefusedGlobalError, match=r"builtins\.getattr"):
            read(rebuilt(args, GETATTR))


@pytest.mark.parametrize(
    "args",
    [
        (),
        (stored(), 0),
        ("storage", 0, (2,), (1,), False, None),
        (None, 0, (2,), (1,), False, None),
        (rebuilt(GOOD), 0, (2,), (1,), False, None),
        (stored(), -1, (2,), (1,), False, None),
        (stored(), 0.5, (2,), (1,), False, None),
        (stored(), True, (2,), (1,), False, None),
        (stored(), 10**30, (2,), (1,), False, None),
        (stored(), 0, 2, (1,), False, None),
        (stored(), 0, [2], [1], False, None),
        (stored(), 0, (-2,), (1,), False, None),
        (stored(), 0, ("2",), (1,), False, None),
        (stored(), 0, (2,), (-1,), False, None),
        (stored(), 0, (2,), (None,), False, None),
        (stored(), 0, (1,) * 65, (1,) * 65, False, None),
    ],
)
def test_tensors_of_strange_arguments_are_malformed(args):
    with pytest.raises(MalformedError, match="rebuilds a tensor"):
        read(rebuilt(args))


@pytest.mark.parametrize(
    "persistent_id",
    [
        "storage",
        None,
        (),
        ("module", b"ctorch\nTensor\n", "file.py", "import os", 1),
        ("storage", b"ctorch\nTensor\n", "0", "cpu", 24),
        ("storage", "FloatStorage", "0", "cpu", 24),
        ("storage", b"ctorch\nFloatStorage\n", 0, "cpu", 24),
        ("storage", b"ctorch\nFloatStorage\n", "0", "cpu", -1),
        ("storage", b"ctorch\nFloatStorage\n", "0", "cpu", "24"),
        ("storage", b"ctorch\nFloatStorage\n", "0", "cpu", 2**62),
        ("storage", b"ctorch\nFloatStorage\n", "0", "cpu", 24, ("0", 0, 3)),
        ("storage", b"ctorch\nFloatStorage\n", "0", "cpu", 24, None, None),
    ],
)
def test_persistent_ids_of_strange_kinds_are_malformed(persistent_id):
    with pytest.raises(MalformedError):
        read(stored(persistent_id))


@pytest.mark.parametrize(
    "made",
    [
        rebuilt((1, True, None), b"ctorch._utils\n_rebuild_parameter\n"),
        rebuilt((b"ctorch\nSize\n", b"ctorch\nTensor\n", ((1,),), {}), b"ctorch._tensor\n_rebuild_from_type_v2\n"),
        rebuilt((GETATTR, b"ctorch\nTensor\n", (), {}), b"ctorch._tensor\n_rebuild_from_type_v2\n"),
        rebuilt(("f", b"ctorch\nTensor\n", (), {}), b"ctorch._tensor\n_rebuild_from_type_v2\n"),
        rebuilt((b"ctorch._tensor\n_rebuild_from_type_v2\n", 1, (), {}), b"ctorch._tensor\n_rebuild_from_type_v2\n"),
        rebuilt(
            (b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nTensor\n", [], {}),
            b"ctorch._tensor\n_rebuild_from_type_v2\n",
        ),
    ],
)
def test_rebuild_functions_cannot_be_turned_on_something_else(made):
    with pytest.raises(MalformedError):
        read(made)


@pytest.mark.parametrize(
    "name",
    [
        "torch.load",
        "torch._utils._rebuild_qtensor",
        "torch._utils._rebuild_sparse_tensor",
        "torch._utils._import_dotted_name",
        "torch.storage._load_from_bytes",
        "torch.jit.load",
        "torch.FloatStorage.from_file",
        "torch.nn.modules.linear.Linear",
        "numpy.load",
        "numpy.core.multiarray.fromfile",
        "builtins.eval",
        "builtins.object",
        "collections.OrderedDict.update",
        "_codecs.lookup",
    ],
)
def test_names_near_the_admitted_ones_are_refused(name):
    module, _, attribute = name.rpartition(".")
    with pytest.raises(RefusedGlobalError) as caught:
        read(f"c{module}\n{attribute}\n".encode())
    assert str(caught.value) == name


def test_an_expensive_list_is_paid_for_once():
    pairs = b"](" + encode(["a", 1]) * 20_000 + b"eq\x01"
    again = rebuilt((b"h\x01",), b"ccollections\nOrderedDict\n") + b"0"
    assert read(b"(" + pairs, again * 10_000, b"K\x01t")[1] == 1
