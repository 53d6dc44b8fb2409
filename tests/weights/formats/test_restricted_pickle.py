import collections
import operator
import os
import pickle
import struct
import subprocess
import sys

import pytest

from vswin.weights.formats.raw_tensor import MalformedError
from vswin.weights.formats.restricted_pickle import Global, Inert, RefusedGlobalError, Vocabulary, unpickle

VOCABULARY = Vocabulary(
    functions={"collections.OrderedDict": lambda args: {}, "made.here": lambda args: ("made", *args)},
    inert=frozenset({"idle.Thing", "numpy.core.multiarray.scalar"}),
    storage_of=lambda persistent_id: ("storage", persistent_id),
)


def read(content: bytes):
    value, end = unpickle(memoryview(content), 0, VOCABULARY)
    assert end == len(content)
    return value


class Reduced:
    """Pickles as whatever it was given."""

    def __init__(self, *reduction):
        self.reduction = reduction

    def __reduce__(self):
        return self.reduction


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_data_comes_out_as_it_went_in(protocol):
    data = {
        "none": None,
        "flags": [True, False],
        "integers": (0, 255, 256, 65_535, 65_536, -1, -(2**31), 2**40, -(2**100)),
        "floats": [0.5, -1e300],
        "texts": ["läuft", "x" * 300, ""],
        "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        "nested": {"a": {"b": [[], {}]}},
        "ordered": collections.OrderedDict(a=1, b=2),
    }
    data["again"] = data["texts"]
    value = read(pickle.dumps(data, protocol))
    assert value == data
    assert value["again"] is value["texts"]


def test_items_under_other_keys_than_text_are_passed_over():
    assert read(pickle.dumps({1: "a", "b": 2, (3,): 4, None: 5, 1.5: 6}, 2)) == {"b": 2}


@pytest.mark.parametrize("protocol", [4, 5])
def test_what_no_tensor_needs_becomes_inert(protocol):
    values = read(pickle.dumps([b"bytes", b"long" * 99, "long" * 20_000, 2**1000, {1, 2}, set()], protocol))
    assert all(isinstance(value, Inert) for value in values)
    assert isinstance(read(pickle.dumps(bytearray(b"bytes"), 5)), Inert)
    assert read(pickle.dumps([frozenset({1})], protocol)) == [(1,)]


def test_text_of_python_2_is_read_whatever_its_encoding():
    assert read(b"\x80\x02U\x03abc.") == "abc"
    assert read(b"\x80\x02T\x02\x00\x00\x00a\xff.") == "a\\xff"


def test_a_list_that_holds_itself_is_no_trouble():
    own: list = []
    own.append(own)
    value = read(pickle.dumps(own, 2))
    assert value[0] is value


def test_an_admitted_function_is_ours_and_gets_the_arguments():
    assert read(b"\x80\x02cmade\nhere\n(K\x01K\x02tR.") == ("made", 1, 2)
    assert read(b"\x80\x04\x8c\x04made\x8c\x04here\x93K\x01\x85\x81.") == ("made", 1)
    assert read(b"\x80\x02X\x01\x00\x00\x00aQ.") == ("storage", "a")


def test_an_admitted_global_alone_is_just_its_name():
    assert read(b"\x80\x02cmade\nhere\n.") == Global("made.here")


def test_objects_of_inert_names_take_any_operation_and_stay_inert():
    thing = b"\x80\x02cidle\nThing\n)\x81}X\x01\x00\x00\x00aK\x01sbK\x01aK\x01K\x02s(K\x01e(K\x01K\x02u."
    assert isinstance(read(thing), Inert)
    assert isinstance(read(b"\x80\x02cnumpy._core.multiarray\nscalar\n)R."), Inert)


@pytest.mark.parametrize(
    ("function", "args"),
    [
        (os.system, ("touch {canary}",)),
        (eval, ("open({canary!r}, 'w')",)),
        (exec, ("open({canary!r}, 'w')",)),
        (open, ("{canary}", "w")),
        (__import__, ("os",)),
        (getattr, (os, "system")),
        (subprocess.Popen, (["touch", "{canary}"],)),
        (operator.attrgetter, ("system",)),
        (pickle.loads, (b"",)),
        (sys.exit, ()),
        (collections.namedtuple, ("a", "b")),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_any_other_global_is_named_and_nothing_runs(tmp_path, function, args, protocol):
    canary = str(tmp_path / "canary")
    filled = tuple(arg.format(canary=canary) if isinstance(arg, str) else arg for arg in args)
    filled = tuple(arg for arg in filled if arg is not os)
    content = pickle.dumps(Reduced(function, filled), protocol)
    with pytest.raises(RefusedGlobalError, match=rf"\.{function.__name__}$"):
        unpickle(memoryview(content), 0, VOCABULARY)
    assert not os.path.exists(canary)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"cos\nsystem\n(S'ls'\ntR.", "os.system"),
        (b"(S'ls'\nios\nsystem\n.", None),
        (b"(ios\nsystem\n.", "os.system"),
        (b"(cposix\nsystem\nU\x02lso.", "posix.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "os.system"),
        (b"\x80\x04\x8c\x09made.here\x8c\x08__call__\x93.", "made.here.__call__"),
        (b"\x80\x04\x8c\x04made\x8c\x0ahere.other\x93.", "made.here.other"),
        (b"\x80\x02cmade\nhere.__globals__\n.", "made.here.__globals__"),
        (b"\x80\x02cbuiltins\ngetattr\ncos\nsystem\n\x85R.", "builtins.getattr"),
        (b"\x80\x02c__builtin__\neval\n.", "builtins.eval"),
        (b"\x80\x02ctorch\nload\nX\x01\x00\x00\x00a\x85R.", "torch.load"),
        (b"\x80\x02ctorch.hub\nload\n.", "torch.hub.load"),
        (b"\x80\x02ccopy_reg\n_reconstructor\n.", "copyreg._reconstructor"),
        (b"\x80\x02c\n\n.", "."),
    ],
)
def test_globals_spelt_in_other_ways_are_refused(content, named):
    with pytest.raises(MalformedError) as caught:
        unpickle(memoryview(content), 0, VOCABULARY)
    if named is not None:
        assert isinstance(caught.value, RefusedGlobalError)
        assert str(caught.value) == named


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02K\x01)R.",  # a call of a number
        b"\x80\x02X\x02\x00\x00\x00os)R.",  # a call of a text
        b"\x80\x02cmade\nhere\n)R)R.",  # a call of what a call returned
        b"\x80\x02cmade\nhere\nK\x01R.",  # arguments that are no tuple
        b"\x80\x02cmade\nhere\n)}\x92.",  # NEWOBJ_EX
        b"\x80\x02cmade\nhere\n}X\x0b\x00\x00\x00__globals__K\x01sb.",  # BUILD of a function
        b"\x80\x02cidle\nThing\n}b.",  # BUILD of a class
        b"\x80\x02]}b.",
        b"\x80\x02)}b.",
        b"\x80\x02N}b.",
        b"\x80\x02K\x01}b.",
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x02\x83\x01\x00.",  # EXT2
        b"\x80\x02\x84\x01\x00\x00\x00.",  # EXT4
        b"Pid\n.",  # PERSID
        b"\x80\x05\x97.",  # NEXT_BUFFER
        b"\x80\x04K\x01K\x02\x93.",  # a global named by numbers
        b"\x80\x02K\x01K\x02a.",  # APPEND to a number
        b"\x80\x02K\x01K\x02K\x03s.",  # SETITEM of a number
        b"\x80\x02}(K\x01u.",  # a key without a value
        b"\x80\x02h\x05.",  # an empty place of the memo
        b"\x80\x02q\x05.",
        b"\x80\x020.",
        b"\x80\x021.",
        b"\x80\x02t.",
        b"\x80\x02(K\x01s.",
        b"\x80\x02\x87.",
        b"\x80\x02R.",
        b"\x80\x02b.",
        b"\x80\x02Q.",
        b"\x80\x02X\xff\xff\xff\xffa.",
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xffa.",
        b"\x80\x02T\xff\xff\xff\xffa.",
        b"\x80\x02\x8b\xff\xff\xff\xff.",
        b"\x80\x02\x8b\x00\x00\x00\x7fa.",
        b"\x80\x04\x95\x01",
        b"\x80\x02cno newline.",
        b"\x80\x02c" + b"a" * 100_000 + b"\nb\n.",
        b"\x80\x02.",
        b"\x80",
        b"",
        b"\xff",
        b"I99999\n.",
        b"<!DOCTYPE html>",
    ],
)
def test_strange_pickles_are_malformed(content):
    with pytest.raises(MalformedError):
        unpickle(memoryview(content), 0, VOCABULARY)


def test_a_pickle_cut_anywhere_is_malformed():
    whole = pickle.dumps({"a": [1.5, "text", (2, 3), collections.OrderedDict(b=4)], "c": 2**70}, 2)
    for length in range(len(whole)):
        with pytest.raises(MalformedError):
            unpickle(memoryview(whole[:length]), 0, VOCABULARY)


def test_endless_pickles_end():
    with pytest.raises(MalformedError, match="500000 operations"):
        unpickle(memoryview(b"\x80\x02" + b"N" * 500_001), 0, VOCABULARY)


def test_deep_nesting_needs_no_recursion():
    deep = read(b"\x80\x02)" + b"\x85" * 20_000 + b".")
    for _ in range(20_000):
        (deep,) = deep
    assert deep == ()


def test_values_that_double_at_every_step_cost_nothing():
    doubling = b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(200))
    assert read(b"\x80\x02}(K\x01" + doubling + b"K\x02u.") == {}


def test_the_position_behind_the_pickle_is_told():
    content = b"junk" + pickle.dumps(1, 2) + struct.pack("<I", 7)
    assert unpickle(memoryview(content), 4, VOCABULARY) == (1, len(content) - 4)
