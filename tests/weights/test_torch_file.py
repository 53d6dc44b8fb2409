"""PyTorch files: sound ones return their tensors; all others give one error, run nothing and take no memory."""

import collections
import io
import os
import pickle
import struct
import subprocess
import tracemalloc
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from vswin.errors import InputError
from vswin.weights.torch_file import read_torch_file

FILES = Path(__file__).parent / "files"
LEGACY_HEADER = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}]
EVERY_KIND = {
    "float16": np.array([0, 0.5, 1], np.float16),
    "bfloat16": np.array([-1, -0.5, 0], np.float32),
    "bfloat16.scalar": np.array(-1.5, np.float32),
    "float32": np.array([[0, 0.5, 1], [1.5, 2, 2.5]], np.float32),
    "float64": np.arange(3) / 3,
    "int8": np.array([-1, 0, 1], np.int8),
    "int16": np.array([-1, 0, 1], np.int16),
    "int32": np.array([-1, 0, 1], np.int32),
    "int64": np.array([-1, 0, 1], np.int64),
    "uint8": np.array([0, 1, 2], np.uint8),
    "bool": np.array([True, False, True]),
    "bool.scalar": np.array(True),
    "scalar": np.array(7, np.float32),
    "empty": np.zeros((2, 0, 3), np.float32),
    "transposed": np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1),
    "every.second": np.array([1, 3, 5, 7, 9], np.float32),
    "slice": np.array([[4, 5, 6], [7, 8, 9]], np.float32),
    "same.storage": np.arange(8, 24, dtype=np.float32),
    "tied.a": np.array([[0, 1], [2, 3]], np.float32),
    "tied.b": np.array([[0, 1], [2, 3]], np.float32),
    "expanded": np.full((2, 5), 3, np.float32),
    "parameter": np.arange(4, dtype=np.float32),
    "with.attribute": np.arange(4, dtype=np.float32),
    "parameter.with.attribute": np.arange(4, dtype=np.float32),
}


# Files written without PyTorch; bytes are parts of pickles and are written unchanged.


def encode(value: object) -> bytes:
    """Encodes a value without a pickle's protocol header and STOP."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, tuple):
        return b"(" + b"".join(map(encode, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(encode, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(encode(key) + encode(item) for key, item in value.items()) + b"u"
    return pickle.dumps(value, 2)[2:-1]


def named(name: str) -> bytes:
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def called(name: str, *args: object) -> bytes:
    return named(name) + encode(args) + b"R"


def storage(key: object = "0", numel: object = 24, kind: str = "torch.FloatStorage", *view: object) -> bytes:
    return encode(("storage", named(kind), key, "cpu", numel, *view)) + b"Q"


def tensor(offset: object = 0, shape: object = (2, 3), strides: object = (3, 1), stored: object = None) -> bytes:
    args = (storage() if stored is None else stored, offset, shape, strides, False, called("collections.OrderedDict"))
    return called("torch._utils._rebuild_tensor_v2", *args)


def pickled(payload: object) -> bytes:
    return b"\x80\x02" + encode(payload) + b"."


VALUES = np.arange(24, dtype="<f4").tobytes()


def zip_of(content: bytes, members: dict[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED) -> bytes:
    """Wraps a pickle as PyTorch does."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, member in {"x/data.pkl": content, "x/data/0": VALUES, **(members or {})}.items():
            archive.writestr(name, member)
    return buffer.getvalue()


def legacy_of(payload: bytes, keys: object = (), values: bytes = b"", header: list[object] = LEGACY_HEADER) -> bytes:
    parts = [*(pickle.dumps(part, 2) for part in header), payload, pickle.dumps(keys, 2)]
    return b"".join(parts) + values


GOOD = zip_of(pickled({"a": tensor()}))


@pytest.fixture
def read(tmp_path):
    """Reads a file with this content."""

    def read(content: bytes) -> dict[str, np.ndarray]:
        (tmp_path / "a.pth").write_bytes(content)
        return read_torch_file(tmp_path / "a.pth")

    return read


@pytest.fixture
def refuse(read):
    """Checks that a file with this content gives one short error, and how much memory reading it takes."""

    def refuse(content: bytes, problem: str = "") -> None:
        tracemalloc.start()
        try:
            with pytest.raises(InputError, match=rf"a\.pth .*{problem}") as caught:
                read(content)
            assert tracemalloc.get_traced_memory()[1] < 10 * len(content) + 150 * 2**20
        finally:
            tracemalloc.stop()
        assert len(str(caught.value)) < 1000
        str(caught.value).encode()

    return refuse


def assert_same(tensors, expected):
    assert list(tensors) == list(expected)
    for name, values in tensors.items():
        assert type(values) is np.ndarray, name
        assert values.dtype == expected[name].dtype, name
        np.testing.assert_array_equal(values, expected[name], strict=True, err_msg=name)


# Sound files


@pytest.mark.parametrize("name", ["mmcv.pth", "mmcv_legacy.pth"])
def test_tensors_of_every_kind_are_read_only_views_that_outlive_the_file(tmp_path, name):
    path = tmp_path / "a.pth"
    path.write_bytes((FILES / name).read_bytes())
    tensors = read_torch_file(path)
    (tmp_path / "b.pth").write_bytes(b"other")
    os.replace(tmp_path / "b.pth", path)
    assert_same(tensors, EVERY_KIND)
    assert np.shares_memory(tensors["tied.a"], tensors["tied.b"])
    assert np.shares_memory(tensors["slice"], tensors["same.storage"])
    assert not np.shares_memory(tensors["float32"], tensors["tied.a"])
    assert not tensors["float32"].flags.writeable


def test_files_of_training_programs_give_their_weights_alone():
    for file, expected in {
        "mmengine.pth": {
            "backbone.weight": np.array([[0, 1, 2], [3, 4, 5]], np.float32),
            "backbone.bias": np.array([1, 2], np.float32),
            "head.weight": np.array([[2, 3], [4, 5]], np.float32),
            "head.bias": np.array([3, 4], np.float32),
        },
        "microsoft.pth": {
            "patch_embed.proj.weight": np.array([[0, 1], [2, 3]], np.float32),
            "head.bias": np.array([0, 1], np.float32),
        },
        "unsigned.pyth": {f"uint{bits}": np.arange(3, dtype=f"u{bits // 8}") for bits in (16, 32, 64)},
        "bare.pth": {"module.a": np.arange(3, dtype=np.float32), "module.b": np.arange(2, dtype=np.float32)},
    }.items():
        assert_same(read_torch_file(FILES / file), expected)


def test_an_archive_compressed_by_another_tool_reads_the_same(read):
    with zipfile.ZipFile(FILES / "mmcv.pth") as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert_same(read(b"PK before" + buffer.getvalue()), EVERY_KIND)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_what_stands_beside_the_weights_is_passed_over(tmp_path, read, protocol):
    numbers = [None, True, 0, 255, 65_536, -(2**31), 2**1000, 0.5, 1j, slice(3), (), (1, 2, 3, 4)]
    sets = [{1, 2}, set(), frozenset({1}), collections.deque([1]), collections.defaultdict(list, a=[1])]
    extra = {1: "a key that is no text", "plain": [*numbers, *sets, "läuft" * 20_000, b"bytes" * 99]}
    extra["arrays"] = [np.arange(3), np.float64(2)] if protocol < 5 else []
    extra["nested"] = collections.OrderedDict(a=collections.OrderedDict(b=[[], {}, collections.Counter("a")]))
    extra["itself"] = extra["plain"]
    end = len(pickle.dumps(extra, protocol))
    frame = pickle.dumps(extra, protocol)[: end - 1]
    assert read(zip_of(frame + b"X\x01\x00\x00\x00a" + tensor() + b"s."))["a"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_tensors_are_rebuilt_by_all_functions_of_pytorch(read):
    rebuild, from_type = "torch._utils._rebuild_tensor", "_rebuild_from_type"
    untyped = storage("0", 96, "torch.storage.UntypedStorage")
    rest = (False, None)
    made = {
        "old": called(rebuild, storage(), 1, (2,), (1,)),
        "v3": called(f"{rebuild}_v3", untyped, 2, (2,), (1,), *rest, named("torch.uint16")),
        "parameter": called("torch._utils._rebuild_parameter_with_state", tensor(), True, None, {}),
        "gpu": tensor(stored=storage("1", 3, "torch.cuda.HalfStorage", None), shape=(3,), strides=(1,)),
        "pairs": tensor(1, (3, 2), (1, 6)),
        "one": tensor(23, (1, 1, 2), (10**9, 2**57, 0)),
    }
    for module in ("torch.tensor", "torch._tensor"):
        args = (named(f"{rebuild}_v2"), named("torch.Tensor"), (storage(), 1, (2,), (1,), *rest), {"note": 1})
        made[module] = called(f"{module}.{from_type}_v2", *args)
    made = {key: value for key, value in made.items() if key != "v3"} | {"size": called("torch.Size", (1, 2))}
    tensors = read(zip_of(pickled(made), {"x/data/1": np.ones(3, np.float16).tobytes()}))
    assert {name: array.tolist() for name, array in tensors.items()} == {
        **{key: [1, 2] for key in ("old", "torch.tensor", "torch._tensor")},
        "parameter": [[0, 1, 2], [3, 4, 5]],
        "gpu": [1, 1, 1],
        "pairs": [[1, 7], [2, 8], [3, 9]],
        "one": [[[23, 23]]],
    }
    v3 = called(f"{rebuild}_v3", untyped, 2, (2,), (1,), *rest, named("torch.uint16"))
    assert read(zip_of(pickled({"a": v3})))["a"].tolist() == [0, 16256]
    pairs = called("collections.OrderedDict", [["a", tensor()], [3, 4]])  # as Python 2 wrote them
    assert list(read(zip_of(pickled(pairs)))) == ["a"]


def test_storages_of_the_legacy_format_follow_in_the_order_of_their_list(read):
    payload = pickled({key: tensor(0, (n,), (1,), storage(key, n)) for key, n in (("a", 2), ("b", 1), ("c", 0))})
    values = b"".join(struct.pack("<q", len(v)) + np.array(v, "<f4").tobytes() for v in ([5], [], [1, 2]))
    tensors = read(legacy_of(payload, ["b", "c", "a"], values))
    assert {name: array.tolist() for name, array in tensors.items()} == {"a": [1, 2], "b": [5], "c": []}


# Hostile pickles


class Reduced:
    """Pickles as a call."""

    def __init__(self, *reduction):
        self.reduction = reduction

    def __reduce__(self):
        return self.reduction


@pytest.mark.parametrize(
    ("function", "args"),
    [
        (os.system, ("touch {canary}",)),
        (eval, ("open({canary!r}, 'w')",)),
        (open, ("{canary}", "w")),
        (__import__, ("os",)),
        (getattr, ("os", "system")),
        (subprocess.Popen, (["touch", "{canary}"],)),
        (pickle.loads, (b"",)),
        (collections.namedtuple, ("a", "b")),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("place", ["zip", *range(5)])
def test_any_other_global_is_named_wherever_it_stands_and_nothing_runs(
    tmp_path, refuse, function, args, protocol, place
):
    canary = str(tmp_path / "canary")
    filled = tuple(arg.format(canary=canary) if isinstance(arg, str) else arg for arg in args)
    evil = pickle.dumps({"state_dict": {}, "meta": Reduced(function, filled)}, protocol)
    before = [*(pickle.dumps(part, 2) for part in LEGACY_HEADER), pickle.dumps({}, 2)]
    content = zip_of(evil) if place == "zip" else b"".join(before[:place]) + evil
    refuse(content, rf"wants the global '\w+\.{function.__name__}', .* nothing was run\. Take")
    assert not os.path.exists(canary)


@pytest.mark.parametrize(
    "name",
    """
    os.system copyreg._reconstructor torch.load torch.hub.load torch._utils._rebuild_qtensor numpy.load
    torch._utils._import_dotted_name torch.storage._load_from_bytes torch.jit.load torch.FloatStorage.from_file
    torch.nn.modules.linear.Linear numpy.core.multiarray.fromfile builtins.eval builtins.object _codecs.lookup
    collections.OrderedDict.update torch._utils._rebuild_tensor.__globals__
    """.split(),  # noqa: SIM905
)
def test_names_near_the_admitted_ones_are_refused(refuse, name):
    refuse(zip_of(pickled({"a": named(name)})), f"wants the global '{name}'")
    module, _, attribute = name.rpartition(".")
    texts = b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, attribute))
    refuse(zip_of(b"\x80\x04" + texts + b"\x93."), f"wants the global '{name}'")


HISTORY = named("mmengine.logging.history_buffer.HistoryBuffer")
GETATTR = "__builtin__.getattr"


def test_getattr_stands_for_four_methods_and_nothing_else(read, refuse):
    methods = [called(GETATTR, HISTORY, method) for method in ("min", "max", "mean", "current")]
    assert list(read(zip_of(pickled({"methods": methods, "a": tensor()})))) == ["a"]
    for args in [
        (HISTORY, "__init__"),
        (HISTORY, "min", 1),
        (),
        (named("torch.Tensor"), "min"),
        (called("mmengine.logging.history_buffer.HistoryBuffer"), "min"),
        (named(GETATTR), "__globals__"),
    ]:
        refuse(zip_of(pickled(called(GETATTR, *args))), "builtins.getattr")


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02K\x01)R.",  # a call of a number
        b"\x80\x02X\x02\x00\x00\x00os)R.",  # a call of a string
        b"\x80\x02ctorch\nTensor\n)R)R.",  # a call of a call's result
        b"\x80\x02ctorch\nTensor\nK\x01R.",  # arguments that are not a tuple
        b"\x80\x02ctorch\nTensor\n)}\x92.",  # NEWOBJ_EX
        b"\x80\x02]}b.",  # the state of a list
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x02\x84\x01\x00\x00\x00.",  # EXT4
        b"(ios\nsystem\n.",  # INST
        b"(cposix\nsystem\nU\x02lso.",  # OBJ
        b"Pid\n.",  # PERSID
        b"\x80\x05\x97.",  # NEXT_BUFFER
        b"\x80\x04K\x01K\x02\x93.",  # a global whose names are numbers
        b"\x80\x02K\x01K\x02a.",  # APPEND to a number
        b"\x80\x02K\x01K\x02K\x03s.",  # SETITEM of a number
        b"\x80\x02}(K\x01u.",  # a key without a value
        b"\x80\x02h\x05.",  # an empty memo index
        *(
            b"\x80\x02" + opcode + b"."
            for opcode in (b"", b"q\x05", b"0", b"1", b"t", b"(K\x01s", b"\x87", b"R", b"b", b"Q")
        ),
        b"\x80\x02Nr\xff\xff\xff\xff.",  # a memo index beyond all bounds
        b"\x80\x02X\xff\xff\xff\xffa.",
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xffa.",
        b"\x80\x04\x8e\x00\x00\x00\x00\x00\x01\x00\x00a.",
        b"\x80\x05\x96\x00\x00\x00\x00\x00\x01\x00\x00a.",  # BYTEARRAY8: a terabyte
        b"\x80\x02T\xff\xff\xff\xffa.",
        b"\x80\x02\x8b\xff\xff\xff\xff.",
        b"\x80\x02\x8b\x00\x00\x00\x7fa.",
        b"\x80\x04\x95\x00\x00\x00\x00\x00\x01\x00\x00.",
        b"\x80\x02c" + b"a" * 100_000 + b"\nb\n.",
        b"\x80\x02X\x03\x00\x00\x00\xed\xa0\x80" + tensor() + b"\x86.",
        b"\x80\x02}X\x03\x00\x00\x00\xed\xa0\x80" + tensor() + b"s.",  # a lone surrogate as a name
        b"I" + b"9" * 100_000 + b"\n.",
        b"\x80",
        b"",
        b"\xff",
    ],
    ids=lambda content: str(content[:12]),
)
def test_strange_pickles_are_refused(refuse, content):
    refuse(zip_of(content))
    refuse(legacy_of(content))


@pytest.mark.slow
def test_pickles_that_cost_more_than_they_weigh(read, refuse):
    with pytest.raises(InputError, match="far more operations than weights need"):
        read(zip_of(b"\x80\x02" + b"]" * 1_000_001))
    doubling = b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(200))
    deep = b")" + b"\x85" * 200_000
    pairs = b"](" + encode(["a", 1]) * 20_000 + b"eq\x01"
    again = called("collections.OrderedDict", b"h\x01") + b"0"
    long = b"(" + b"K\x01" * 100_000 + b"tq\x01"
    for content in (
        b"}(K\x01" + doubling + doubling + b"K\x02u",  # a key that takes forever to hash
        b"}(" + deep + b"K\x02u",
        b"(" + deep + b"\x91",  # and such an element of a set
        b"(" + pairs + again * 10_000 + b"t",
        b"(" + long + (named("torch.Tensor") + b"h\x01R0") * 20_000 + b"t",
    ):
        assert list(read(zip_of(pickled({"a": tensor(), "b": content})))) == ["a"]
    refuse(
        legacy_of(pickled({}), values=b"").replace(pickle.dumps((), 2), b"\x80\x02](" + deep + b"e."),
        "list of storages",
    )


@pytest.mark.parametrize(
    "args",
    [
        (),
        (storage(), 0),
        *((stored, 0, (2,), (1,), False, None) for stored in ("storage", None, tensor())),
        *((storage(), offset, (2,), (1,), False, None) for offset in (-1, 0.5, True, 10**30)),
        *((storage(), 0, shape, (1,), False, None) for shape in (2, [2], (-2,), ("2",), (2, 2))),
        *((storage(), 0, (2,), strides, False, None) for strides in ((-1,), (None,))),
        (storage(), 0, (1,) * 33, (1,) * 33, False, None),
        *((stored, 0, (2,), (1,), False, None) for stored in (storage("0", -1), storage(0), storage("0", 2**62))),
        (storage("0", 24, "torch.Tensor"), 0, (2,), (1,), False, None),
        (storage("0", 24, "torch.FloatStorage", ("0", 0, 3)), 0, (2,), (1,), False, None),
        (b"X\x01\x00\x00\x00aQ", 0, (2,), (1,), False, None),
    ],
)
def test_tensors_of_strange_arguments_are_refused(refuse, args):
    refuse(zip_of(pickled({"a": called("torch._utils._rebuild_tensor_v2", *args)})), "cannot be read")


@pytest.mark.parametrize(
    ("offset", "shape", "strides", "problem"),
    [
        (0, (25,), (1,), "reaches element 24 of a storage that has 24"),
        (24, (), (), "reaches element"),
        (0, (2, 13), (12, 1), "reaches element"),
        (2**57, (2,), (1,), "reaches element"),
        (0, (2, 2), (2**57, 2**57), "reaches element"),
        (0, (0, 2**57, 2**57), (1, 1, 1), "damaged"),
        (3, (1000, 1000), (0, 0), "unfold 96 stored bytes to 4000000, over 4 times"),
        (0, (2**57, 2**57), (0, 0), "unfold"),
    ],
)
def test_no_tensor_leaves_its_storage_or_unfolds_to_many(refuse, offset, shape, strides, problem):
    refuse(zip_of(pickled({"a": tensor(offset, shape, strides)})), problem)


# Hostile archives


def test_archives_that_are_none_of_pytorch_are_refused(refuse):
    for compression in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        refuse(zip_of(pickled({}), {}, compression), "encrypted or compressed in an unusual way")
    refuse(zip_of(pickled({"a": tensor()}), {"z": bytes(20 * 2**20)}, zipfile.ZIP_DEFLATED), "would inflate to 2097")
    refuse(GOOD.replace(b"x/data/0", b"x/data.p"), "damaged|no member")
    refuse(zip_of(pickled({}), {"y/data.pkl": b""}).replace(b"y/data.pkl", b"x/data.pkl"), "two members of one name")
    refuse(zip_of(pickled({}), {"y/data.pkl": b""}), "2 members called data.pkl")
    refuse(zip_of(pickled({}), {"x/constants.pkl": b""}), "TorchScript")
    for order in (b"big", b"", b"\xff" * 1000):
        refuse(zip_of(pickled({}), {"x/byteorder": order}), "byte order is not little")
    refuse(zip_of(pickled({"a": tensor(stored=storage("1"))})), "no member 'x/data/1'")
    refuse(zip_of(pickled({"a": tensor(stored=storage("../data.pkl"))})), "no member")
    refuse(zip_of(pickled({"a": tensor()}), {"x/data/0": bytes(95)}), "has 95 bytes instead of 96")
    refuse(zip_of(b"", {f"{number:060000d}": b"" for number in range(100)}), "a directory far larger")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_what_a_directory_claims_is_refused_or_makes_no_difference(read, compression):
    good = zip_of(pickled({"a": tensor()}), {}, compression)
    entry = good.rindex(b"PK\x01\x02")  # the storage's entry
    for offset, layout, value in [
        (8, "<H", 1),  # encrypted
        (16, "<I", 7),  # the checksum
        (20, "<II", (10**6, 10**6)),  # the sizes
        (20, "<II", (10, 10)),
        (42, "<I", 3),  # its offset
        (42, "<I", 2**31),
    ]:
        content = bytearray(good)
        struct.pack_into(layout, content, entry + offset, *(value if isinstance(value, tuple) else (value,)))
        with suppress(InputError):
            assert read(bytes(content))["a"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_legacy_files_must_agree_with_themselves(refuse):
    one = pickled({"a": tensor(0, (1,), (1,), storage("a", 1))})
    values = struct.pack("<q", 1) + bytes(4)
    for header in ([3], [LEGACY_HEADER[0], 1000], [*LEGACY_HEADER[:2], []], [*LEGACY_HEADER[:2], {}]):
        refuse(legacy_of(one, ["a"], values, header), "not one of torch.save|damaged|byte order")
    for keys in ("b", ["b"], [1], ["a", "a"], None):
        refuse(legacy_of(one, keys, values))
    refuse(legacy_of(one, [], b""))
    two_ways = pickled({"a": tensor(0, (1,), (1,), storage("a", 1)), "b": tensor(0, (1,), (1,), storage("a", 2))})
    refuse(legacy_of(two_ways, ["a"], values), "'a' in two ways")
    for wrong in (struct.pack("<q", 3) + bytes(12), struct.pack("<q", -1) + bytes(4), values[:-1], b"\x02", b""):
        refuse(legacy_of(one, ["a"], wrong))
    refuse(
        legacy_of(pickled({"a": tensor(0, (1,), (1,), storage("a", 2**57))}), ["a"], values), "1 elements instead of"
    )


# Other files


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
        (b"\n<!DOCTYPE html><html>", "is a web page"),
        (b"PK\x03\x04 and no more", "damaged"),
        (b"no pickle", "not a file of weights"),
        (pickle.dumps(3, 2), "not one of torch.save"),
        (zip_of(pickled([1, 2])), "no dict of tensors"),
        (zip_of(pickled({"epoch": 3, "net": {"a": 1}})), "no tensors under state_dict.*keys are 'epoch', 'net'"),
        (zip_of(pickled({})), "whose keys are none"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else value[:20],
)
def test_other_files_are_named_for_what_they_are(refuse, content, problem):
    refuse(content, problem)


@pytest.mark.parametrize("name", ["mmcv.pth", "mmcv_legacy.pth"])
def test_a_file_cut_anywhere_is_an_error(read, name):
    content = (FILES / name).read_bytes()
    for length in range(0, len(content) - 1, 41):
        with pytest.raises(InputError, match=r"a\.pth "):
            read(content[:length])
