"""Small edits that damage the bytes of a file, drawn at random or by Hypothesis."""

import random
from typing import NamedTuple

# Values at which sizes, counts and offsets break.
INTEGERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**63, 2**64 - 1)
# Texts at which readers break, and names that lead elsewhere.
TOKENS = (
    *(bytes([character]) for character in b"\0\r\n\t \"',#-:\\|%*&{}[]/~\xff"),
    *(b"\r\n", b"--", b"[" * 3000, b'{"a":' * 3000, b"(" * 3000, b"null", b"true", b"NaN", b"Infinity", b"../"),
    *(b"-1", b"0", b"1e999", b"1e308", b"9" * 20, b"9" * 5000, b"3.5", b"\xd9\xa3", b"0x10", b"\xef\xbb\xbf"),
    *(b"\xed\xa0\x80", b"\\ud800", b"\xe2\x80\xa8", b"\xe2\x80\xae", b"/etc/passwd", b"." * 300, b"a" * 70_000),
    *(b"${oc.env:HOME}", b"_target_: os.system", b"!!python/object/apply:os.system [ls]", b"&a [*a, *a]"),
)
KINDS = ("flip", "set", "integer", "token", "replace", "remove", "repeat", "cut", "digits", "splice")
_WEIGHTS = (4, 3, 3, 2, 2, 1, 1, 1, 3, 1)


class Edit(NamedTuple):
    """One edit: a kind of KINDS, a fraction [0, 1) of the file as place, and a value >= 0 that each kind interprets."""

    kind: str
    place: float
    value: int


def draw_edits(rng: random.Random) -> list[Edit]:
    """Draws one to six edits, rarely more than two."""
    count = 1 + min(int(rng.expovariate(1.3)), 5)
    return [Edit(kind, rng.random(), rng.getrandbits(32)) for kind in rng.choices(KINDS, _WEIGHTS, k=count)]


def apply_edits(content: bytes, edits: list[Edit], other: bytes = b"") -> bytes:
    """Applies edits to a file in order; one kind inserts a piece of `other`, a file of the same kind."""
    changed = bytearray(content)
    for edit in edits:
        _apply(changed, edit, other or content)
    return bytes(changed)


def _apply(changed: bytearray, edit: Edit, other: bytes) -> None:
    at, value = int(edit.place * len(changed)), edit.value
    length = 1 + value % 16 if value % 4 else 1 + value % 512
    if edit.kind == "flip" and changed:
        changed[at] ^= 1 << value % 8
    elif edit.kind == "set" and changed:
        changed[at] = value % 256
    elif edit.kind == "integer":
        width, order = (1, 2, 4, 8)[value % 4], ("little", "big")[value // 4 % 2]
        number = INTEGERS[value // 8 % len(INTEGERS)] % 256**width
        changed[at : at + width] = number.to_bytes(width, order)
    elif edit.kind == "token":
        changed[at:at] = TOKENS[value % len(TOKENS)]
    elif edit.kind == "replace":
        changed[at : at + length] = TOKENS[value // 16 % len(TOKENS)]
    elif edit.kind == "remove":
        del changed[at : at + length]
    elif edit.kind == "repeat":
        changed[at:at] = changed[at : at + length] * (1 + value // 512 % 4)
    elif edit.kind == "cut":
        del changed[at:]
    elif edit.kind == "digits":
        _change_digits(changed, at, value)
    elif edit.kind == "splice":
        start = value % (len(other) + 1)
        changed[at : at + length] = other[start : start + length]


def _change_digits(changed: bytearray, at: int, value: int) -> None:
    """Replaces the next number that is written in digits."""
    start = next((i for i in range(at, len(changed)) if changed[i : i + 1].isdigit()), None)
    if start is None:
        return
    end = start
    while end < len(changed) and changed[end : end + 1].isdigit():
        end += 1
    changed[start:end] = str(INTEGERS[value % len(INTEGERS)]).encode()
