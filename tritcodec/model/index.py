"""SPEC 15.1: the index of a model folder: which shards it has, and which tensor is in which. No I/O."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, count
from typing import Any, NamedTuple, NoReturn

from ..canonical import check_name
from ..errors import TritError
from ..layout import MAX_FILE_SIZE

TRIT_NAME = "model.trit"  # the file of a model that has no shards
INDEX_NAME = "model.trit.index.json"
BLOBS = "blobs"  # what hub clients call the folder of what they keep
MAX_INDEX_SIZE = 64 << 20
MAX_NESTING = 8
MAX_SHARD_NAME = 128

SHARD_NAME = re.compile(r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9_.-]*\.trit")
TAKEN_NAME = re.compile(r"model\.trit|(?:con|prn|aux|nul|com[0-9]|lpt[0-9])\..*", re.IGNORECASE)
IDENTITY = re.compile(r"[0-9a-f]{64}")
TOO_DEEP = f"objects and arrays are nested more than {MAX_NESTING} deep"
SHOWN = 80  # characters of what is quoted in a message
TYPES = {dict: "object", list: "array", str: "string", int: "integer", bool: "boolean", type(None): "null"}
KEYS = {"metadata": dict, "shards": dict, "weight_map": dict}


class Shard(NamedTuple):
    """What the index is made of: a shard's identity in hexadecimal, its bytes, the names of its tensors."""

    identity: str
    size: int
    tensors: Sequence[str]


@dataclass(frozen=True)
class Index:
    """The index of a model folder (SPEC 15.1).

    `shards` has the identity of each shard by its name, `weight_map` the
    shard of each tensor, and `total_size` is the bytes of all shards.
    """

    shards: Mapping[str, str]
    weight_map: Mapping[str, str]
    total_size: int

    @cached_property
    def tensors(self) -> dict[str, set[str]]:
        """The names of the tensors of each shard."""
        found: dict[str, set[str]] = {shard: set() for shard in self.shards}
        for name, shard in self.weight_map.items():
            found[shard].add(name)
        return found


def encode_index(shards: Mapping[str, Shard]) -> bytes:
    """The bytes of the index of *shards* by their names; the same for the same shards in any order.

    Raises TritError where a reader would refuse the index, and (IDX-16) where a
    tensor is in two shards.
    """
    weight_map: dict[str, str] = {}
    for shard in sorted(shards):
        for name in shards[shard].tensors:
            if name in weight_map:
                message = f"tensor {name[:SHOWN]!a} is in two shards, {weight_map[name]} and {shard}"
                raise TritError(message, clause="IDX-16")
            weight_map[name] = shard
    index = {
        "metadata": {"total_size": sum(shard.size for shard in shards.values())},
        "shards": {name: shard.identity for name, shard in shards.items()},
        "weight_map": weight_map,
    }
    data = index_bytes(index)
    decode_index(data)  # what a writer writes, a reader takes
    return data


def index_bytes(index: Mapping[str, object]) -> bytes:
    """The JSON of *index* as the Hugging Face library writes it.

    "A writer SHOULD write the index in ASCII, with sorted keys, an indent of two spaces, and a line
    feed at its end."
    """
    return (json.dumps(index, indent=2, sort_keys=True) + "\n").encode("ascii")


def decode_index(data: bytes) -> Index:
    """The index in *data*, all of it checked (SPEC 15.1).

    Raises TritError (IDX-1 to IDX-11, NAME-1, NAME-2) with the first fault.
    """
    # "The index MUST be at most 67108864 bytes long."
    if len(data) > MAX_INDEX_SIZE:
        raise TritError(f"the index is longer than {MAX_INDEX_SIZE} bytes", clause="IDX-1")
    content = _parse(data)
    # "The index MUST have the keys metadata, shards and weight_map, and its metadata the key total_size."
    fields = {key: _typed(_field(content, key, ""), kind, key) for key, kind in KEYS.items()}
    total_size = _typed(_field(fields["metadata"], "total_size", "metadata"), int, "metadata, total_size")
    if total_size > MAX_FILE_SIZE:
        _fail("IDX-7", f"{total_size} is above 2^63 - 1", "metadata, total_size")
    for name, identity in fields["shards"].items():
        place = f"shards, {name[:SHOWN]!a}"
        if not IDENTITY.fullmatch(_typed(identity, str, place)):
            _fail("IDX-7", f"{identity[:SHOWN]!a} is no identity, 64 lowercase hexadecimal digits", place)
    for name, shard in fields["weight_map"].items():
        place = f"weight_map, {name[:SHOWN]!a}"
        _typed(shard, str, place)
        _check_tensor_name(name, place)
    _check_shard_names(fields["shards"], fields["weight_map"])
    return Index(fields["shards"], fields["weight_map"], total_size)


def _parse(data: bytes) -> dict[str, Any]:
    """The object in *data*, whose values are proved JSON, text, and not too deep."""
    # "The index MUST be one JSON object as RFC 8259 defines it, in UTF-8 without a byte order mark."
    try:
        value = json.loads(
            data.decode(),
            object_pairs_hook=_object,
            parse_int=_number,
            parse_float=_number,
            parse_constant=_constant,
        )
    except UnicodeDecodeError as error:
        _fail("IDX-2", f"not UTF-8: {error.reason}", f"byte {error.start}")
    except json.JSONDecodeError as error:
        _fail("IDX-2", f"no JSON: {error.msg}", f"line {error.lineno}, column {error.colno}")
    except RecursionError:
        _fail("IDX-5", TOO_DEEP)
    if not isinstance(value, dict):
        _fail("IDX-2", f"{_type_of(value)} where an object is expected")
    _check_values(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for key, value in pairs:
        # "An object in the index MUST NOT hold a key twice."
        if key in fields:
            _fail("IDX-4", f"an object has the key {key[:SHOWN]!a} twice")
        fields[key] = value
    return fields


def _number(text: str) -> int | float:
    """An integer from 0 on; NaN for every other number, of which none means anything here.

    None of them is computed: a number may have a million digits.
    """
    return int(text) if text.isdigit() and len(text) <= len(str(MAX_FILE_SIZE)) else math.nan


def _constant(text: str) -> NoReturn:
    _fail("IDX-2", f"no JSON: {text}")


def _check_values(value: Any) -> None:
    """Look at every value, level by level, for what is too deep or no text."""
    level = [value]
    for depth in count(1):
        texts = [text for text in level if isinstance(text, str)]
        # "A string in the index MUST NOT hold half of a surrogate pair."
        try:
            "".join(texts).encode()
        except UnicodeEncodeError as error:
            _fail("IDX-3", f"a string holds {error.object[error.start]!a}, half of a surrogate pair")
        containers = [container for container in level if isinstance(container, dict | list)]
        if not containers:
            return
        # "Objects and arrays in the index MUST be nested at most 8 deep."
        if depth > MAX_NESTING:
            _fail("IDX-5", TOO_DEEP)
        level = [child for container in containers for child in _children(container)]


def _children(container: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return container if isinstance(container, list) else chain(container, container.values())


def _field(fields: dict[str, Any], key: str, where: str) -> Any:
    if key not in fields:
        _fail("IDX-6", f"the key {key} is missing", where)
    return fields[key]


def _typed(value: Any, kind: type, where: str) -> Any:
    """*value*, which is of type *kind*."""
    # "A value in the index MUST have the type that the table of 15.1 gives it."
    if type(value) is not kind:  # a boolean is an int in Python
        _fail("IDX-7", f"{_type_of(value)} where {TYPES[kind]} is expected", where)
    return value


def _type_of(value: Any) -> str:
    return TYPES.get(type(value), "number that is no integer from 0 to 2^63 - 1")


def _check_tensor_name(name: str, where: str) -> None:
    try:
        check_name(name.encode())
    except TritError as error:
        raise error.at(where) from None


def _check_shard_names(shards: dict[str, str], weight_map: dict[str, str]) -> None:
    named = set(weight_map.values())
    for name in sorted({*shards, *named}):
        check_shard_name(name)
    lowered: dict[str, str] = {}
    for name in sorted(shards):
        # "The names of two shards MUST differ in more than the case of letters."
        other = lowered.setdefault(name.lower(), name)
        if other != name:
            _fail("IDX-10", f"{other} and {name} are one file where case does not count", "shards")
    # "The shards that weight_map names MUST be the keys of shards."
    if named != shards.keys():
        only = min(named ^ shards.keys())
        there, lacking = ("weight_map", "shards") if only in named else ("shards", "weight_map")
        _fail("IDX-11", f"{only} stands in {there} and not in {lacking}")


def check_shard_name(name: str) -> None:
    """Raise TritError (IDX-8, IDX-9) where *name* is no name of a shard."""
    # "The name of a shard MUST be 6 to 128 letters of ASCII, digits, _, - and ., beginning with none of
    # - and ., ending in .trit, and without ..."
    if len(name) > MAX_SHARD_NAME or not SHARD_NAME.fullmatch(name):
        _fail("IDX-8", f"{name[:SHOWN]!a} is no name of a shard")
    # "The name of a shard MUST NOT be model.trit, nor that of a device up to its first dot, in whatever
    # case of letters."
    if TAKEN_NAME.fullmatch(name):
        _fail("IDX-9", f"{name} is another file, or a device")


def _fail(clause: str, message: str, where: str = "") -> NoReturn:
    raise TritError(message, clause=clause, where=where)
