"""SPEC 6.2: canonical MessagePack, read with the expected type in hand.

Writing goes through the msgpack library. Reading does not: a reader has to
refuse what is not canonical, say at which byte, and never build an object of
a type that it does not expect (a header of nested empty maps costs a general
decoder 60 times its size in memory), so `Cursor` walks the bytes, and what
it has read is proved canonical.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NoReturn

from .errors import TritError

HEADER_AT = 64  # in the file, behind the preamble (SPEC 6.1)
MAX_HEADER_SIZE = 64 << 20
MAX_NAME_SIZE = 512
MAX_NESTING = 8

WIDE_FORMS = {  # first byte: (type, bytes of the integer or length, least value that needs them)
    0xC4: ("bin", 1, 0),
    0xC5: ("bin", 2, 1 << 8),
    0xC6: ("bin", 4, 1 << 16),
    0xCC: ("integer", 1, 1 << 7),
    0xCD: ("integer", 2, 1 << 8),
    0xCE: ("integer", 4, 1 << 16),
    0xCF: ("integer", 8, 1 << 32),
    0xD9: ("str", 1, 32),
    0xDA: ("str", 2, 1 << 8),
    0xDB: ("str", 4, 1 << 16),
    0xDC: ("array", 2, 16),
    0xDD: ("array", 4, 1 << 16),
    0xDE: ("map", 2, 16),
    0xDF: ("map", 4, 1 << 16),
}
SHORT_FORMS = {
    **{first: ("integer", first) for first in range(0x00, 0x80)},
    **{first: ("map", first - 0x80) for first in range(0x80, 0x90)},
    **{first: ("array", first - 0x90) for first in range(0x90, 0xA0)},
    **{first: ("str", first - 0xA0) for first in range(0xA0, 0xC0)},
}
CONTROL = re.compile(r"[\x00-\x1F\x7F-\x9F\u2028-\u202E\u2066-\u2069\uFEFF]")


def check_name(name: bytes) -> None:
    """Raise TritError where *name*, UTF-8, is no tensor name or metadata key (SPEC 6.3)."""
    # "A name or a metadata key MUST be 1 to 512 bytes long."
    if not 1 <= len(name) <= MAX_NAME_SIZE:
        raise TritError(f"a name of {len(name)} bytes; 1 to {MAX_NAME_SIZE} are allowed", clause="NAME-1")
    # "A name or a metadata key MUST NOT hold a control character."
    control = CONTROL.search(name.decode())
    if control:
        message = f"name {name.decode()!a} holds the control character U+{ord(control[0]):04X}"
        raise TritError(message, clause="NAME-2")


class Cursor:
    """Reads one expected value after the other from canonical MessagePack (SPEC 6.2)."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.where = ""  # what is being read, for messages

    def fail(self, clause: str, message: str) -> NoReturn:
        """Raise TritError with the place in the file that has been reached."""
        place = f"byte {HEADER_AT + self.at}"
        raise TritError(message, clause=clause, where=f"{self.where}, {place}" if self.where else place)

    def head(self) -> tuple[str, int]:
        """The type of the next value and its integer, length or count."""
        first = self.data[self.at] if self.at < len(self.data) else self.take(1)[0]  # which fails
        self.at += 1
        if first in SHORT_FORMS:
            return SHORT_FORMS[first]
        # "Every value in the header MUST be an unsigned integer, a str, a bin, an array or a map."
        if first not in WIDE_FORMS:
            self.at -= 1
            self.fail("MP-1", f"{first:#04x} begins no unsigned integer, str, bin, array or map")
        kind, width, least = WIDE_FORMS[first]
        number = int.from_bytes(self.take(width), "big")
        # "Every integer and every length MUST be in its shortest form."
        if number < least:
            self.at -= 1 + width
            self.fail("MP-2", f"the {kind} with {number} is not in its shortest form")
        return kind, number

    def expect(self, kind: str) -> int:
        """The integer, length or count of the next value, which is of type *kind* (TYPE-1)."""
        start = self.at
        found, number = self.head()
        # "A value in the header MUST have the type that the tables of this chapter give it."
        if found != kind:
            self.at = start
            self.fail("TYPE-1", f"{found} where {kind} is expected")
        return number

    def take(self, size: int) -> bytes:
        """The next *size* bytes (MP-5)."""
        data = self.data[self.at : self.at + size]
        # "The header MUST be exactly one value, with nothing cut off and nothing after it."
        if len(data) < size:
            self.fail("MP-5", f"{size} bytes are expected, {len(data)} are left")
        self.at += size
        return data

    def binary(self, size: int, clause: str) -> bytes:
        """A bin of just *size* bytes, or TritError with *clause*."""
        length = self.expect("bin")
        if length != size:
            self.fail(clause, f"bin of {length} bytes where {size} are expected")
        return self.take(length)

    def utf8(self, limit: int = MAX_HEADER_SIZE, clause: str = "MP-5") -> str:
        """A str of at most *limit* bytes, proved UTF-8 (MP-4), or TritError with *clause*."""
        length = self.expect("str")
        if length > limit:
            self.fail(clause, f"str of {length} bytes, over the limit of {limit}")
        return self.text(length)

    def text(self, length: int) -> str:
        """A str whose head has been read, proved UTF-8 (MP-4)."""
        # "Every str MUST be well-formed UTF-8."
        try:
            return self.take(length).decode()
        except UnicodeDecodeError as error:
            self.at -= length - error.start
            self.fail("MP-4", f"str that is not UTF-8: {error.reason}")

    def check_name(self, name: str) -> None:
        """Raise TritError where *name*, just read, is no name (NAME-1, NAME-2)."""
        try:
            check_name(name.encode())
        except TritError as error:
            self.fail(error.clause or "", error.message)

    def array(self, limit: int, clause: str) -> Iterator[int]:
        """The indices of an array of at most *limit* values."""
        count = self.expect("array")
        if count > limit:
            self.fail(clause, f"array of {count} values, over the limit of {limit}")
        return iter(range(count))

    def map_keys(self, limit: int = MAX_HEADER_SIZE, clause: str = "MP-5") -> Iterator[str]:
        """The keys of a map of at most *limit* pairs, one after the other; the caller reads each value."""
        return self.keys(self.expect("map"), limit, clause)

    def keys(self, count: int, limit: int = MAX_HEADER_SIZE, clause: str = "MP-5") -> Iterator[str]:
        """The keys of a map of *count* pairs, whose head has been read, as `map_keys` gives them."""
        if count > limit:
            self.fail(clause, f"map of {count} pairs, over the limit of {limit}")
        previous = None
        for _ in range(count):
            start = self.at
            kind, length = self.head()
            # "The keys of a map MUST be str in strictly increasing order of their UTF-8 bytes."
            if kind != "str":
                self.at = start
                self.fail("MP-3", f"{kind} where a key, a str, is expected")
            key = self.text(length)
            if previous is not None and key <= previous:  # by code points, which UTF-8 keeps in order
                self.at = start
                self.fail("MP-3", f"key {key[:80]!a} is not above {previous[:80]!a}")
            previous = key
            yield key

    def skip(self, depth: int) -> None:
        """Pass over any value, the *depth*-th level of nesting if an array or a map."""
        kind, number = self.head()
        # "Arrays and maps MUST be nested at most 8 deep."
        if kind in ("array", "map") and depth > MAX_NESTING:
            self.fail("MP-6", f"nested more than {MAX_NESTING} deep")
        if kind == "array":
            for _ in range(number):
                self.skip(depth + 1)
        elif kind == "bin":
            self.take(number)
        elif kind == "str":
            self.text(number)
        elif kind == "map" and number:
            for _ in self.keys(number):
                self.skip(depth + 1)
