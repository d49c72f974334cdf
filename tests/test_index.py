"""The index of a model folder: its bytes, its limits, and that only TritError comes of any bytes."""

from __future__ import annotations

import json
from typing import Any

import folder_cases
import independent
import pytest
from folder_cases import LONE, TEXT
from helpers import refused
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from strategies import names, quick

from tritcodec import TritError
from tritcodec.model import index
from tritcodec.model.index import Index, Shard, decode_index, encode_index

ZEROS = "0" * 64
KEYS = ["metadata", "shards", "weight_map", "total_size", LONE, "w", "x"]


@st.composite
def shards(draw: DrawFn) -> dict[str, Shard]:
    """Shards with identities, sizes, and tensors of any name."""
    tensors = draw(st.lists(names(), min_size=1, max_size=12, unique=True))
    count = draw(st.integers(1, len(tensors)))
    made = {}
    for n in range(count):
        identity = f"{draw(st.integers(0, 2**256 - 1)):064x}"
        size = draw(st.integers(0, 2**63 // len(tensors) - 1))
        made[f"model-{n + 1:05}-of-{count:05}.trit"] = Shard(identity, size, tensors[n::count])
    return made


@st.composite
def values(draw: DrawFn) -> Any:
    """JSON values that have something of an index."""
    leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.just(ZEROS))
    keys = st.one_of(st.sampled_from(KEYS), st.text(max_size=3))
    return draw(
        st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=12)
    )


def clause_of(data: bytes) -> str | None:
    """The requirement that the package finds broken, or None."""
    try:
        decode_index(data)
    except TritError as error:
        return error.clause or "none"
    return None


def independent_clause_of(data: bytes) -> str | None:
    """The requirement that the independent decoder finds broken, or None."""
    try:
        independent.read_index(data)
    except independent.Broken as broken:
        return broken.clause
    return None


# There and back


@given(shards())
@quick
def test_what_is_written_is_read(made: dict[str, Shard]) -> None:
    """Every shard, tensor and size comes back, by both decoders, whatever the names."""
    data = encode_index(made)
    found = decode_index(data)
    assert found.shards == {name: shard.identity for name, shard in made.items()}
    assert found.weight_map == {tensor: name for name, shard in made.items() for tensor in shard.tensors}
    assert found.tensors == {name: set(shard.tensors) for name, shard in made.items()}
    assert found.total_size == sum(shard.size for shard in made.values())
    other = independent.read_index(data)
    assert Index(**other) == found


@given(shards(), st.randoms(use_true_random=False))
@quick
def test_the_bytes_do_not_depend_on_the_order(made: dict[str, Shard], random: Any) -> None:
    """The same shards and tensors in another order give the same bytes."""
    turned = list(made.items())
    random.shuffle(turned)
    other = {name: shard._replace(tensors=shard.tensors[::-1]) for name, shard in turned}
    assert encode_index(other) == encode_index(made)


def test_the_bytes_are_those_of_the_hugging_face_library() -> None:
    """IDX-18: ASCII, sorted keys, an indent of two, a line feed at the end; a known answer."""
    made = {"b.trit": Shard("1" * 64, 128, ["\u00e9", "a"]), "a.trit": Shard(ZEROS, 192, ["b"])}
    assert encode_index(made).decode("ascii") == (
        "{\n"
        '  "metadata": {\n'
        '    "total_size": 320\n'
        "  },\n"
        '  "shards": {\n'
        f'    "a.trit": "{ZEROS}",\n'
        f'    "b.trit": "{"1" * 64}"\n'
        "  },\n"
        '  "weight_map": {\n'
        '    "a": "b.trit",\n'
        '    "b": "a.trit",\n'
        '    "\\u00e9": "b.trit"\n'
        "  }\n"
        "}\n"
    )


@pytest.mark.parametrize(
    ("clause", "made"),
    [
        ("IDX-3", {"a.trit": Shard(ZEROS, 1, ["\ud800"])}),
        ("IDX-7", {"a.trit": Shard("A" * 64, 1, ["x"])}),
        ("IDX-7", {"a.trit": Shard(ZEROS, 2**63, ["x"])}),
        ("IDX-7", {"a.trit": Shard(ZEROS, -1, ["x"])}),
        ("IDX-8", {"../a.trit": Shard(ZEROS, 1, ["x"])}),
        ("IDX-9", {"model.trit": Shard(ZEROS, 1, ["x"])}),
        ("IDX-10", {"a.trit": Shard(ZEROS, 1, ["x"]), "A.trit": Shard(ZEROS, 1, ["y"])}),
        ("IDX-11", {"a.trit": Shard(ZEROS, 1, [])}),
        ("IDX-16", {"a.trit": Shard(ZEROS, 1, ["x"]), "b.trit": Shard(ZEROS, 1, ["x"])}),
        ("IDX-16", {"a.trit": Shard(ZEROS, 1, ["x", "x"])}),
        ("NAME-1", {"a.trit": Shard(ZEROS, 1, [""])}),
        ("NAME-2", {"a.trit": Shard(ZEROS, 1, ["\x1b"])}),
    ],
)
def test_nothing_is_written_that_is_not_read(clause: str, made: dict[str, Shard]) -> None:
    """What a reader would refuse is refused when it is written."""
    with refused(clause):
        encode_index(made)


def test_errors_say_where() -> None:
    """A message has the place in the index, and what stands there."""
    wrong = folder_cases.put("weight_map", "layer.0", value=["x"])[independent.INDEX]
    with refused("IDX-7", "weight_map, 'layer.0'") as caught:
        decode_index(wrong)
    assert "array where string is expected" in str(caught.value)
    with refused("IDX-2", "line 3, column 1") as caught:
        decode_index(b'{\n"x": 1,\n}')
    with refused("IDX-7", "metadata, total_size") as caught:
        decode_index(
            TEXT.replace("total_size", "total_size", 1).replace('"total_size": ', '"total_size": -').encode()
        )
    assert "number that is no integer from 0 to 2^63 - 1" in str(caught.value)


# Any bytes


@given(st.binary() | st.text().map(str.encode) | values().map(lambda value: json.dumps(value).encode()))
@quick
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """Only TritError comes of what is no index, with a clause; both decoders agree on whether it is one."""
    assert (clause_of(data) is None) == (independent_clause_of(data) is None)


@given(st.data())
@quick
def test_a_changed_index_is_judged_alike(data: st.DataObject) -> None:
    """A sound index with a few changed characters is sound to both decoders, or to none."""
    text = list(TEXT)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at] = data.draw(
            st.sampled_from(["", '"', "{", "}", ",", ":", "\\", "0", "-", "\u00e9", " ", "\ud800"])
        )
    encoded = "".join(text).encode("utf-8", "surrogatepass")
    assert (clause_of(encoded) is None) == (independent_clause_of(encoded) is None)


# Limits


def test_the_size_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """IDX-1: an index of the limit is read, one of a byte more is not."""
    data = TEXT.encode()
    monkeypatch.setattr(index, "MAX_INDEX_SIZE", len(data))
    assert clause_of(data) is None
    assert clause_of(data + b" ") == "IDX-1"


@pytest.mark.parametrize("bracket", ["[", '{"x":', '[{"x":'])
def test_nesting_ends_no_reader(bracket: str) -> None:
    """A million levels, closed or not, are an error like any other, however little stack is left."""
    levels = bracket * 1_000_000
    closed = levels + "1" + "".join({"[": "]", '{"x":': "}", '[{"x":': "}]"}[bracket]) * 1_000_000
    for text in (levels, closed, '{"x":' + closed + "}"):
        assert clause_of(text.encode()) == "IDX-5"


def test_numbers_take_no_time() -> None:
    """A number of a million digits is not computed: Python refuses to, or takes time squared."""
    for text in ("1" * 1_000_000, "1." + "1" * 1_000_000, "1e" + "9" * 1_000_000):
        data = TEXT.replace("{", '{"x": ' + text + ",", 1).encode()
        assert clause_of(data) is None


def test_a_long_name_is_not_shown_in_full() -> None:
    """What is quoted from an index in a message is cut."""
    for text in (f'{{"{"x" * 10**6}": 1, "{"x" * 10**6}": 2}}', TEXT.replace('"w"', f'"{"x" * 10**6}"')):
        with pytest.raises(TritError) as caught:
            decode_index(text.encode())
        assert len(str(caught.value)) < 300
