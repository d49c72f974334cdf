"""SPEC 6.2: what is canonical MessagePack and what is not, byte by byte."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable
from typing import Any

import independent
import pytest
from helpers import encode, little_memory, refused
from hypothesis import given
from hypothesis import strategies as st
from strategies import messages, quick

from tritcodec.canonical import HEADER_AT, Cursor

WIDE = {  # by SPEC 6.2: first byte: (kind, bytes that follow, least number that needs so many)
    0xCC: ("integer", 1, 128),
    0xCD: ("integer", 2, 256),
    0xCE: ("integer", 4, 65_536),
    0xCF: ("integer", 8, 2**32),
    0xD9: ("str", 1, 32),
    0xDA: ("str", 2, 256),
    0xDB: ("str", 4, 65_536),
    0xC4: ("bin", 1, 0),
    0xC5: ("bin", 2, 256),
    0xC6: ("bin", 4, 65_536),
    0xDC: ("array", 2, 16),
    0xDD: ("array", 4, 65_536),
    0xDE: ("map", 2, 16),
    0xDF: ("map", 4, 65_536),
}
FIXED = {
    "integer": (0x00, 0x80),
    "map": (0x80, 0x10),
    "array": (0x90, 0x10),
    "str": (0xA0, 0x20),
}  # first, count
KINDS = ["integer", "str", "bin", "array", "map"]
EDGES = [0, 15, 16, 31, 32, 127, 128, 255, 256, 65_535, 65_536]
INTEGERS = [*EDGES, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1]


def content(kind: str, number: int) -> bytes:
    """What follows a head: nothing, *number* bytes, or *number* zeros, with keys of one width in a map."""
    if kind == "map":
        return b"".join(b"\xa3" + f"{key:x}".rjust(3, "0").encode() + b"\0" for key in range(number))
    return b"" if kind == "integer" else bytes(number)


def skipped(data: bytes) -> int:
    """The byte after the first value of *data*."""
    cursor = Cursor(data)
    cursor.skip(1)
    return cursor.at


@quick
@given(messages())
def test_what_the_library_writes_is_canonical(value: Any) -> None:
    """Every value of SPEC 6.2, written by msgpack with keys sorted, is passed over to its last byte."""
    data = encode(value)
    assert skipped(data) == len(data)
    assert skipped(data + b"\xc1") == len(data)
    assert independent.dumps(value) == data


@quick
@given(messages(2), st.data())
def test_every_truncation_is_refused(value: Any, data: st.DataObject) -> None:
    """A value cut anywhere is refused with MP-5."""
    encoded = encode(value)
    end = data.draw(st.integers(0, len(encoded) - 1))
    with refused("MP-5"):
        skipped(encoded[:end])


def test_a_value_of_every_kind_cut_at_every_byte() -> None:
    """One value that holds every form up to 4 GiB, cut at each of its bytes, is refused with MP-5."""
    value = {
        "a": [0, 128, 256, 65_536, 2**32],
        "b": ["", "x" * 32, "é" * 128],
        "c": [b"", b"x" * 256],
        "d": {f"{i:02}": i for i in range(16)},
        "e": list(range(16)),
    }
    encoded = encode(value)
    assert skipped(encoded) == len(encoded)
    for end in range(len(encoded)):
        with refused("MP-5", f"byte {HEADER_AT + min(end, len(encoded))}" if end == 0 else "byte "):
            skipped(encoded[:end])


@pytest.mark.parametrize("number", INTEGERS)
def test_integers_at_every_boundary(number: int) -> None:
    """An integer is read in its shortest form, and refused with MP-2 in each longer one."""
    shortest = encode(number)
    cursor = Cursor(shortest)
    assert (cursor.expect("integer"), cursor.at) == (number, len(shortest))
    longer = [
        first for first, (kind, width, _) in WIDE.items() if kind == "integer" and width >= len(shortest)
    ]
    for first in longer:
        with refused("MP-2", "byte 64"):
            Cursor(bytes([first]) + number.to_bytes(WIDE[first][1], "big")).expect("integer")


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("number", EDGES)
def test_lengths_at_every_boundary(kind: str, number: int) -> None:
    """A length or count is taken in its shortest form, and refused with MP-2 in each longer one."""
    if kind in FIXED and number < FIXED[kind][1]:
        shortest = bytes([FIXED[kind][0] + number])
        longer = [first for first, form in WIDE.items() if form[0] == kind]
    else:
        fits = [first for first, form in WIDE.items() if form[0] == kind and number < 256 ** form[1]]
        shortest, longer = bytes([fits[0]]) + number.to_bytes(WIDE[fits[0]][1], "big"), fits[1:]
    follows = content(kind, number) if number <= 4096 or kind != "map" else b""
    if follows or number == 0:
        assert skipped(shortest + follows) == len(shortest) + len(follows)
    assert Cursor(shortest).head() == (kind, number)
    for first in longer:
        for nested in (b"", b"\x91", b"\x81\xa1k"):
            with refused("MP-2", f"byte {HEADER_AT + len(nested)}"):
                skipped(nested + bytes([first]) + number.to_bytes(WIDE[first][1], "big") + follows)


@pytest.mark.parametrize("first", WIDE, ids=hex)
def test_the_least_number_of_a_form(first: int) -> None:
    """Each wide form begins just where the one before it ends: one less is refused."""
    kind, width, least = WIDE[first]
    assert Cursor(bytes([first]) + least.to_bytes(width, "big")).head() == (kind, least)
    if least:
        with refused("MP-2") as caught:
            Cursor(bytes([first]) + (least - 1).to_bytes(width, "big")).head()
        assert kind in caught.value.message
        assert str(least - 1) in caught.value.message


def test_numbers_are_big_endian() -> None:
    """Inside MessagePack, the most significant byte comes first."""
    assert Cursor(b"\xcd\x01\x02").expect("integer") == 258
    assert Cursor(b"\xcf" + bytes(range(1, 9))).expect("integer") == 0x0102030405060708


FORBIDDEN = [0xC0, 0xC1, 0xC2, 0xC3, 0xC7, 0xC8, 0xC9, 0xCA, 0xCB, *range(0xD0, 0xD9), *range(0xE0, 0x100)]


def test_every_first_byte_has_its_meaning() -> None:
    """Of 256 first bytes, the table of SPEC 6.2 gives a meaning to 206; the others are refused (MP-1)."""
    allowed = [*WIDE, *(first + i for first, count in FIXED.values() for i in range(count))]
    assert sorted([*allowed, *FORBIDDEN]) == list(range(256))


@pytest.mark.parametrize(
    "before", [b"", b"\x91", b"\x92\0", b"\x81\xa1k"], ids=["alone", "array", "second", "value"]
)
@pytest.mark.parametrize("first", FORBIDDEN, ids=hex)
def test_other_types_are_refused(first: int, before: bytes) -> None:
    """Nil, booleans, floats, signed integers, extensions and C1 are refused (MP-1), wherever they stand."""
    with refused("MP-1", f"byte {HEADER_AT + len(before)}") as caught:
        skipped(before + bytes([first]) + bytes(20))
    assert f"{first:#04x}" in caught.value.message


@pytest.mark.parametrize("value", [None, True, False, 0.0, -1, -32, -33, -(2**63)], ids=repr)
def test_values_of_other_types_are_refused(value: Any) -> None:
    """What the library writes for them is refused with MP-1: True is not 1."""
    for nested in (value, [value], {"k": value}):
        with refused("MP-1"):
            skipped(encode(nested))


def test_positive_numbers_in_signed_forms_are_refused() -> None:
    """int 8 to int 64 are no forms of unsigned integers, even where the number is positive."""
    for first, form in ((0xD0, ">b"), (0xD1, ">h"), (0xD2, ">i"), (0xD3, ">q")):
        with refused("MP-1"):
            Cursor(bytes([first]) + struct.pack(form, 100)).expect("integer")


NESTINGS: dict[str, Callable[[int], bytes]] = {
    "arrays": lambda depth: b"\x91" * (depth - 1) + b"\x90",
    "maps": lambda depth: b"\x81\xa1k" * (depth - 1) + b"\x80",
    "maps and arrays": lambda depth: (
        (b"\x81\xa1k\x91" * depth)[: 4 * ((depth - 1) // 2)]
        + (b"\x81\xa1k" if depth % 2 == 0 else b"")
        + b"\x90"
    ),
}


@pytest.mark.parametrize("kind", NESTINGS)
def test_eight_levels_are_enough(kind: str) -> None:
    """Arrays and maps nested 8 deep are taken; whatever is deeper is refused with MP-6."""
    nest = NESTINGS[kind]
    for depth in range(1, 9):
        assert skipped(nest(depth)) == len(nest(depth))
    for depth in (9, 10, 100, 100_000):
        with refused("MP-6"):
            skipped(nest(depth))


def test_nesting_counts_from_where_the_value_stands() -> None:
    """A value that stands at level 4 has 5 levels of its own."""
    nested = NESTINGS["arrays"]
    Cursor(nested(5)).skip(4)
    with refused("MP-6"):
        Cursor(nested(6)).skip(4)


@pytest.mark.parametrize("nested", [b"", b"\x91", b"\x81\xa1k"], ids=["alone", "in an array", "in a map"])
@pytest.mark.parametrize("first", [0xDB, 0xC6, 0xDD, 0xDF], ids=hex)
def test_four_gigabytes_are_claimed_in_vain(first: int, nested: bytes) -> None:
    """str, bin, array and map of 2^32 - 1 in 20 bytes are refused (MP-5), without memory for their claims."""
    data = (nested + bytes([first]) + b"\xff\xff\xff\xff").ljust(20, b"\0")
    with little_memory(), refused("MP-5"):
        skipped(data)


def test_a_map_that_is_cut_off() -> None:
    """A map that claims 65,536 pairs and has two ends in MP-5."""
    with little_memory(), refused("MP-5"):
        skipped(b"\xdf\0\1\0\0" + b"\xa1a\0" + b"\xa1b\0")


NOT_UTF8 = {
    "overlong NUL": b"\xc0\x80",
    "overlong, two bytes": b"\xc1\xbf",
    "overlong, three bytes": b"\xe0\x9f\xbf",
    "overlong, four bytes": b"\xf0\x8f\xbf\xbf",
    "first surrogate": b"\xed\xa0\x80",
    "last surrogate": b"\xed\xbf\xbf",
    "pair of surrogates": b"\xed\xa0\xbd\xed\xb8\x80",
    "above U+10FFFF": b"\xf4\x90\x80\x80",
    "F5": b"\xf5\x80\x80\x80",
    "five bytes": b"\xf8\x88\x80\x80\x80",
    "FE": b"\xfe",
    "FF": b"\xff",
    "lone continuation": b"\x80",
    "cut after one of two": b"\xc3",
    "cut after two of three": b"\xe2\x82",
    "cut after three of four": b"\xf0\x9f\x98",
    "cut by another character": b"\xe2\x82a",
    "Latin-1": "é".encode("latin-1"),
}


@pytest.mark.parametrize("bad", NOT_UTF8.values(), ids=NOT_UTF8.keys())
@pytest.mark.parametrize("before", [b"", b"abc", "é\U0001f600".encode()], ids=["", "abc", "é😀"])
def test_text_is_utf8(before: bytes, bad: bytes) -> None:
    """Each kind of ill-formed UTF-8 is refused (MP-4), as value and as key, at the byte where it begins."""
    text = before + bad
    encoded = bytes([0xA0 + len(text)]) + text
    with refused("MP-4", f"byte {HEADER_AT + 1 + len(before)}"):
        skipped(encoded)
    with refused("MP-4", f"byte {HEADER_AT + 2 + len(before)}"):
        skipped(b"\x81" + encoded + b"\0")


@pytest.mark.parametrize(
    "text",
    ["", "\0", "\x7f", "\x80", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff"],
    ids=ascii,
)
def test_the_ends_of_utf8(text: str) -> None:
    """The first and last character of each width of UTF-8, and those beside the surrogates, are text."""
    cursor = Cursor(encode(text))
    assert cursor.utf8() == text


def map_of(*keys: str) -> bytes:
    """A map of *keys* in the order given, all values 0."""
    return bytes([0x80 + len(keys)]) + b"".join(encode(key) + b"\0" for key in keys)


@pytest.mark.parametrize(
    "keys",
    [
        ("b", "a"),
        ("a", "a"),
        ("", ""),
        ("a", "b", "b"),
        ("a", "c", "b"),
        ("b", "aa"),  # sorted by encoded length
        ("aa", "a"),
        ("a", ""),
        ("\U0001f600", "\uff5e"),  # sorted by UTF-16 units
        ("a", "B"),  # sorted without regard to case
        ("é", "z"),  # sorted by a dictionary
    ],
    ids=ascii,
)
def test_keys_strictly_increase(keys: tuple[str, ...]) -> None:
    """Keys that are equal, decrease, or are sorted in any order but that of their UTF-8 bytes break MP-3."""
    with refused("MP-3"):
        skipped(map_of(*keys))


@pytest.mark.parametrize(
    "keys",
    [("aa", "b"), ("a", "aa"), ("", "a"), ("\uff5e", "\U0001f600"), ("B", "a"), ("e", "z", "é")],
    ids=ascii,
)
def test_the_order_of_bytes(keys: tuple[str, ...]) -> None:
    """Keys in the order of their UTF-8 bytes are taken, and given one after the other."""
    assert skipped(map_of(*keys)) == len(map_of(*keys))
    cursor = Cursor(map_of(*keys))
    found = []
    for key in cursor.map_keys():
        found.append(key)
        cursor.skip(1)
    assert tuple(found) == keys


def test_a_duplicate_key_of_another_width() -> None:
    """The same key once more in a longer form is no other key: MP-2, since that is met first."""
    with refused("MP-2"):
        skipped(b"\x82" + encode("k") + b"\0" + b"\xd9\x01k" + b"\0")


@pytest.mark.parametrize("key", [0, 200, b"k", [], {}], ids=repr)
def test_keys_are_text(key: Any) -> None:
    """A key that is no str breaks MP-3, which says that it has to be one."""
    with refused("MP-3"):
        skipped(b"\x81" + encode(key) + b"\0")


VALUES: dict[str, Any] = {"integer": 200, "str": "text", "bin": b"text", "array": [1], "map": {"k": 1}}


@pytest.mark.parametrize(("expected", "found"), list(itertools.permutations(VALUES, 2)))
def test_another_type_than_expected(expected: str, found: str) -> None:
    """A value of another type is refused with TYPE-1, at its first byte, and the message has both types."""
    cursor = Cursor(b"\0\0" + encode(VALUES[found]))
    cursor.take(2)
    with refused("TYPE-1", "byte 66") as caught:
        cursor.expect(expected)
    assert caught.value.message == f"{found} where {expected} is expected"


@pytest.mark.parametrize("size", [0, 31, 33, 300])
def test_a_bin_of_another_size(size: int) -> None:
    """A bin of another size than expected is refused with the clause given; both sizes are said."""
    assert Cursor(encode(bytes(32))).binary(32, "ENT-3") == bytes(32)
    with refused("ENT-3") as caught:
        Cursor(encode(bytes(size))).binary(32, "ENT-3")
    assert f"{size} bytes where 32" in caught.value.message


def test_limits_come_before_reading() -> None:
    """Over its limit, a str, array or map is refused with the clause given, by its head alone (READ-1)."""
    assert Cursor(encode("abc")).utf8(3, "NAME-1") == "abc"
    assert list(Cursor(encode([0, 0, 0])).array(3, "HDR-4")) == [0, 1, 2]
    with refused("NAME-1"):
        Cursor(b"\xa4").utf8(3, "NAME-1")
    with refused("HDR-4"):
        Cursor(b"\xdd\xff\xff\xff\xff").array(3, "HDR-4")
    with refused("HDR-5"):
        next(Cursor(b"\xdf\xff\xff\xff\xff").map_keys(3, "HDR-5"))


def test_the_place_is_part_of_the_error() -> None:
    """What is being read, and the byte that was reached, are said."""
    cursor = Cursor(b"\xa1")
    cursor.where = "entry 7"
    with refused("MP-5", "entry 7, byte 65"):
        cursor.utf8()
