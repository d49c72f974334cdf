"""SPEC 14: exchange layouts, held against the independent codec and ggml's own reader."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import independent
import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants
from helpers import I8, largest, little_memory, painted, painted_levels, refused, same, steps
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from layout_vectors import NO_TQ1_0
from safetensors.numpy import load_file
from strategies import quick, tensors

from tritcodec import TritError, TritFile, TritTensor, join, layouts, open_file, quantize, save_file, split

MINILM = Path(__file__).parents[1] / "fixtures" / "minilm" / "model.safetensors"
RAGGED = [*range(1, 131), 255, 256, 257]
BOXES = [1, 5 * 64, 5 * 256 + 1, layouts.BOX_WEIGHTS]  # BOX_WEIGHTS so small that there are many boxes
SCALE = np.frombuffer(np.float16(1).tobytes(), np.uint8)  # of a block that ggml reads


class Layout(NamedTuple):
    """A layout of one plane, or of levels: both ways, by the package and by the independent codec."""

    depths: tuple[int, ...]
    to: Callable[[TritTensor], np.ndarray]
    back: Callable[[np.ndarray, int, int], I8]  # array, columns, depth
    formula: Callable[[list[list[int]], int], bytes]
    unit: int  # columns
    size: int  # bytes of a unit


LAYOUTS = {
    "two-bit": Layout(
        (1,),
        lambda t: layouts.to_two_bit(t, 0),
        lambda words, columns, _: layouts.from_two_bit(words, columns),
        lambda levels, _: independent.to_two_bit(levels),
        64,
        16,
    ),
    "int4": Layout((1, 2), layouts.to_int4, layouts.from_int4, independent.to_int4, 2, 1),
    "tq1_0": Layout(
        (1,),
        lambda t: layouts.to_tq1_0(t, 0),
        lambda blocks, columns, _: layouts.from_tq1_0(blocks, columns),
        lambda levels, _: independent.to_tq1_0(levels),
        256,
        52,
    ),
}
CASES = [(name, depth) for name, layout in LAYOUTS.items() for depth in layout.depths]
both = pytest.mark.parametrize(("name", "depth"), CASES)


def tensor(levels: I8, depth: int) -> TritTensor:
    """A tensor of these levels."""
    size = min(levels.shape[-1], 65_536)
    codes = np.zeros((*levels.shape[:-1], -(-levels.shape[-1] // size)), np.uint8)
    return TritTensor.from_levels(levels, codes, steps(), depth=depth, group_size=size)


# Values


@both
@pytest.mark.parametrize("rows", [1, 7])
def test_every_width_by_the_formula(name: str, depth: int, rows: int) -> None:
    """Rows of 1 to 130 and around 256 columns become these bytes and come back (XL-1, XL-5, XL-7)."""
    layout = LAYOUTS[name]
    for columns in RAGGED:
        levels = painted_levels((rows, columns), depth)
        array = layout.to(tensor(levels, depth))
        assert array.tobytes() == layout.formula(levels.tolist(), depth), columns
        assert np.array_equal(layout.back(array, columns, depth), levels), columns


@given(tensors(), st.sampled_from(BOXES))
@quick
def test_planes_of_any_tensor(t: TritTensor, box: int) -> None:
    """Every plane of a tensor of any form, in boxes of any size, gives the formula's bytes in its shape."""
    K, planes = t.shape[-1], split(t.levels(), t.depth)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layouts, "BOX_WEIGHTS", box)
        words = [layouts.to_two_bit(t, p) for p in range(t.depth)]
        blocks = [layouts.to_tq1_0(t, p) for p in range(t.depth)]
        trits = [layouts.from_two_bit(array, K) for array in words]
        others = [layouts.from_tq1_0(array, K) for array in blocks]
    for p, plane in enumerate(planes):
        rows = plane.reshape(-1, K).tolist()
        assert words[p].dtype == np.dtype("<u4")
        assert words[p].shape == (*t.shape[:-1], 4)
        assert blocks[p].dtype == np.uint8
        assert blocks[p].shape == (*t.shape[:-1], 1, 52)
        assert words[p].tobytes() == independent.to_two_bit(rows)
        assert blocks[p].tobytes() == independent.to_tq1_0(rows)
    assert np.array_equal(np.stack(trits), planes)
    assert np.array_equal(np.stack(others), planes)
    back = TritTensor.from_levels(
        join(np.stack(trits)),
        t.codes,
        t.codebook,
        depth=t.depth,
        shift=t.shift,
        group_size=t.group_size,
        dtype=t.dtype,
    )
    assert same(t, back)


@st.composite
def matrices(draw: DrawFn) -> tuple[str, int, I8]:
    """A layout, one of its depths, and random levels of several rows, boxes and units."""
    name, depth = draw(st.sampled_from(CASES))
    shape = draw(st.integers(1, 23)), draw(st.integers(1, 600))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return name, depth, rng.integers(-largest(depth), largest(depth), shape, np.int8, endpoint=True)


@given(matrices(), st.sampled_from(BOXES), st.booleans())
@quick
def test_there_and_back(drawn: tuple[str, int, I8], box: int, flipped: bool) -> None:
    """Levels come back from arrays of any strides, in boxes of any size, and inputs stay as they are."""
    name, depth, levels = drawn
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layouts, "BOX_WEIGHTS", box)
        array = LAYOUTS[name].to(tensor(levels, depth))
        if flipped:
            array = array.T.copy().T
        before = array.copy()
        array.flags.writeable = False
        back = LAYOUTS[name].back(array, levels.shape[1], depth)
    assert back.dtype == np.int8
    assert back.flags.c_contiguous
    assert np.array_equal(back, levels)
    assert np.array_equal(array, before)


def test_every_tq1_0_byte() -> None:
    """Each value of each of the 52 bytes gives the digits of its v, or is refused (XL-8, XL-9)."""
    zeros = layouts.to_tq1_0(tensor(np.zeros((1, 256), np.int8), 1), 0)
    for at, columns in enumerate(independent.TQ1_0_COLUMNS):
        values = np.arange(0, 243, 1 if at < 48 else 3)
        blocks = np.repeat(zeros, len(values), axis=0)
        blocks[:, 0, at] = -(-values * 256 // 243)
        trits = layouts.from_tq1_0(blocks, 256)
        for n, column in enumerate(columns):
            assert np.array_equal(trits[:, column], values // 3 ** (4 - n) % 3 - 1)
        assert not np.delete(trits, columns, axis=1).any()
        assert np.array_equal(layouts.to_tq1_0(tensor(trits, 1), 0), blocks)
        for byte in {*range(256)} - {*blocks[:, 0, at].tolist()}:
            zeros[0, 0, at], before = byte, zeros[0, 0, at]
            with refused("XL-8" if byte in NO_TQ1_0 else "XL-9") as caught:
                layouts.from_tq1_0(zeros, 256)
            assert f"byte {byte} at {(0, 0, at)} " in str(caught.value)
            zeros[0, 0, at] = before


def test_every_two_bit_byte() -> None:
    """Each of the 16 bytes of 64 columns, of each of 256 values, gives four trits or holds a 3 (XL-2)."""
    for at in range(16):
        for byte in range(256):
            data = np.zeros(16, np.uint8)
            data[at] = byte
            codes = [byte >> 2 * i & 3 for i in range(4)]
            if 3 in codes:
                with refused("XL-2") as caught:
                    layouts.from_two_bit(data.view("<u4"), 64)
                assert f"word {byte << at % 4 * 8} at {(0, at // 4)} " in str(caught.value)
                continue
            trits = layouts.from_two_bit(data.view("<u4"), 64)
            assert trits[4 * at : 4 * at + 4].tolist() == [{0: 0, 1: 1, 2: -1}[code] for code in codes]
            assert np.count_nonzero(trits) == np.count_nonzero(codes)


@pytest.mark.parametrize("depth", [1, 2])
def test_every_int4_byte(depth: int) -> None:
    """Each of 256 bytes gives two levels of the depth, or is refused for the first that is none."""
    H = largest(depth)
    for byte in range(256):
        pair = [nibble - 16 if nibble > 7 else nibble for nibble in (byte & 15, byte >> 4)]
        wrong = [j for j, level in enumerate(pair) if abs(level) > H]
        data = np.array([[byte]], np.uint8)
        if wrong:
            with refused("TRIT-2") as caught:
                layouts.from_int4(data, 2, depth)
            assert f"level {pair[wrong[0]]} at {(0, wrong[0])} " in str(caught.value)
        else:
            assert layouts.from_int4(data, 2, depth).tolist() == [pair]
            assert layouts.to_int4(tensor(np.array([pair], np.int8), depth)).tolist() == [[byte]]


def test_ggml_reads_the_same_trits() -> None:
    """gguf-py's own reader finds the trits in our bytes, and its writer makes those bytes of the trits."""
    trits = np.random.default_rng(0).integers(-1, 1, (40, 3 * 256), np.int8, endpoint=True)
    trits[:, ::256] = 1  # so that the largest magnitude of a block, ggml's scale, is 1
    blocks = layouts.to_tq1_0(tensor(trits, 1), 0)
    whole = np.concatenate([blocks, np.broadcast_to(SCALE, (*blocks.shape[:-1], 2))], axis=-1)
    kind = GGMLQuantizationType.TQ1_0
    read = quants.dequantize(whole.reshape(len(trits), -1), kind)
    assert np.array_equal(read, trits.astype(np.float32))
    written = quants.quantize(trits.astype(np.float32), kind)
    assert np.array_equal(written, whole.reshape(len(trits), -1))
    assert np.array_equal(layouts.from_tq1_0(written.reshape(whole.shape)[..., :52], 3 * 256), trits)


def test_ggml_reads_every_byte() -> None:
    """gguf-py's reader finds in each of the 243 bytes the five trits that we find, wherever five stand."""
    known = np.array([-(-v * 256 // 243) for v in range(243)], np.uint8)
    blocks = np.zeros((243, 1, 54), np.uint8)
    blocks[..., :48] = known[:, None, None]
    blocks[..., 48:52] = known[3 * np.arange(243) % 243, None, None]
    blocks[..., 52:] = SCALE
    read = quants.dequantize(blocks.reshape(243, 54), GGMLQuantizationType.TQ1_0)
    assert np.array_equal(layouts.from_tq1_0(blocks[..., :52], 256), read)


# Tensors and files


@pytest.mark.parametrize(("leading", "rows"), [((), 1), ((3,), 3), ((2, 3), 6), ((2, 1, 4), 8)], ids=str)
def test_leading_axes_stay(leading: tuple[int, ...], rows: int) -> None:
    """A tensor of any rank keeps its leading axes, both ways."""
    t = painted((*leading, 70), depth=2)
    flat = painted((rows, 70), depth=2)
    assert np.array_equal(layouts.to_two_bit(t, 1), layouts.to_two_bit(flat, 1).reshape(*leading, 8))
    assert np.array_equal(layouts.to_int4(t), layouts.to_int4(flat).reshape(*leading, 35))
    assert np.array_equal(layouts.to_tq1_0(t, 0), layouts.to_tq1_0(flat, 0).reshape(*leading, 1, 52))
    assert np.array_equal(layouts.from_int4(layouts.to_int4(t), 70, 2), t.levels())
    assert layouts.from_two_bit(layouts.to_two_bit(t, 1), 70).shape == t.shape
    assert layouts.from_tq1_0(layouts.to_tq1_0(t, 1), 70).shape == t.shape


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritFile]:
    """Real weights at depths 2 and 4, in an open file."""
    weights = load_file(MINILM)["encoder.layer.0.intermediate.dense.weight"][:1003]
    path = tmp_path_factory.mktemp("layouts") / "real.trit"
    save_file({f"depth {depth}": quantize(weights, depth) for depth in (2, 4)}, path)
    with open_file(path) as file:
        yield file


def test_real_weights_from_a_file(real: TritFile) -> None:
    """Blocks of rows straight from a file go through every layout, and make the file's tensor again."""
    for name in real.keys():  # noqa: SIM118  # no mapping
        t = real.get_tensor(name)
        assert isinstance(t, TritTensor)
        rows, K = t.shape
        levels = []
        for start in range(0, rows, 250):
            block = real.get_rows(name, start, min(start + 250, rows))
            assert isinstance(block, TritTensor)
            words = [layouts.to_two_bit(block, p) for p in range(t.depth)]
            bytes_ = [layouts.to_tq1_0(block, p) for p in range(t.depth)]
            trits = np.stack([layouts.from_two_bit(array, K) for array in words])
            assert np.array_equal(trits, [layouts.from_tq1_0(array, K) for array in bytes_])
            levels.append(join(trits))
            if t.depth == 2:
                assert np.array_equal(layouts.from_int4(layouts.to_int4(block), K, 2), levels[-1])
        whole = np.concatenate(levels)
        assert np.abs(whole).max() == largest(t.depth)
        back = TritTensor.from_levels(whole, t.codes, t.codebook, depth=t.depth, dtype=t.dtype)
        assert same(t, back)


def test_a_lower_depth_has_the_upper_planes() -> None:
    """A truncated tensor's plane p is the whole one's plane p + 1 a depth below; int4 takes it, too."""
    t = painted((9, 70), depth=4)
    for depth in (1, 2, 3):
        for p in range(depth):
            upper = layouts.to_two_bit(t, p + 4 - depth)
            assert np.array_equal(layouts.to_two_bit(t.truncate(depth), p), upper)
    assert np.array_equal(layouts.from_int4(layouts.to_int4(t.truncate(2)), 70, 2), t.truncate(2).levels())


@both
@pytest.mark.parametrize("shape", [(1 << 14, 64), (3, 1 << 18), (1 << 14, 1)], ids=str)
def test_memory_is_output_and_boxes(
    monkeypatch: pytest.MonkeyPatch, name: str, depth: int, shape: tuple[int, int]
) -> None:
    """Whatever the shape, a conversion takes the memory of its output and some boxes, and no more."""
    monkeypatch.setattr(layouts, "BOX_WEIGHTS", 1 << 13)
    layout, t = LAYOUTS[name], tensor(np.zeros(shape, np.int8), depth)
    size = shape[0] * -(-shape[1] // layout.unit) * layout.size
    with little_memory(size + (30 << 13)):
        array = layout.to(t)
    assert array.nbytes == size
    with little_memory(shape[0] * shape[1] + (30 << 13)):
        layout.back(array, shape[1], depth)


# What is refused


@both
def test_padding_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, depth: int) -> None:
    """Anything but 0 that pads a row is refused with its place, in any box (XL-3, XL-6, XL-10)."""
    monkeypatch.setattr(layouts, "BOX_WEIGHTS", 1)
    layout, clause = LAYOUTS[name], {"two-bit": "XL-3", "int4": "XL-6", "tq1_0": "XL-10"}[name]
    for columns in (1, layout.unit - 1, layout.unit + 1, 3 * layout.unit - 1):
        width = -(-columns // layout.unit) * layout.unit
        for at in {columns, (columns + width) // 2, width - 1}:
            for value in range(-largest(depth), largest(depth) + 1):
                levels = np.zeros((7, width), np.int8)
                levels[5, at] = value
                array = layout.to(tensor(levels, depth))
                if value:
                    with refused(clause) as caught:
                        layout.back(array, columns, depth)
                    assert f"value {value} at {(5, at)} " in str(caught.value)
                else:
                    assert layout.back(array, columns, depth).shape == (7, columns)


@both
def test_faults_are_found_in_every_box(monkeypatch: pytest.MonkeyPatch, name: str, depth: int) -> None:
    """A fault is found wherever it stands, and its place is that in the whole array."""
    monkeypatch.setattr(layouts, "BOX_WEIGHTS", 5 * 512)
    fault: dict[str, tuple[str, int, Callable[[int], tuple[int, ...]]]] = {
        "two-bit": ("XL-2", 3, lambda at: (at // 4,)),
        "int4": ("TRIT-2", 7, lambda at: (2 * at,)),
        "tq1_0": ("XL-8", NO_TQ1_0[3], lambda at: (at // 52, at % 52)),
    }
    layout, (clause, byte, place) = LAYOUTS[name], fault[name]
    good = layout.to(tensor(painted_levels((23, 1500), depth), depth))
    size = good.nbytes // 23
    for row in (0, 4, 5, 22):
        for at in (0, 51, 52, size // 2, size - 16):
            array = good.copy()
            array.view(np.uint8).reshape(23, size)[row, at] = byte
            with refused(clause) as caught:
                layout.back(array, 1500, depth)
            assert f" at {(row, *place(at))} " in str(caught.value)


SHAPES: dict[str, tuple[Callable[[np.ndarray], I8], np.ndarray]] = {
    "XL-1": (lambda a: layouts.from_two_bit(a, 65), np.zeros((3, 8), np.uint32)),
    "XL-5": (lambda a: layouts.from_int4(a, 65, 2), np.zeros((3, 33), np.uint8)),
    "XL-7": (lambda a: layouts.from_tq1_0(a, 257), layouts.to_tq1_0(painted((3, 257), 1), 0)),
}


@pytest.mark.parametrize("clause", SHAPES)
def test_other_shapes_are_refused(clause: str) -> None:
    """Rows of another length, or none, are refused for the layout's shape; no rows are fine."""
    back, array = SHAPES[clause]
    columns = 257 if clause == "XL-7" else 65
    assert back(array).shape == (3, columns)
    assert back(array[:0]).shape == (0, columns)
    assert back(array[0]).shape == (columns,)
    for other in (array[:, 1:], np.repeat(array, 2, axis=1), array[..., :-1], array[..., None], array[0, 0]):
        with refused(clause):
            back(other)


@pytest.mark.parametrize("plane", [-1, 2, 1.0, True, None, "0"], ids=repr)
def test_other_planes_are_refused(plane: object) -> None:
    """A plane that the tensor does not have is an error of the caller."""
    for call in (layouts.to_two_bit, layouts.to_tq1_0):
        with refused(None):
            call(painted(depth=2), plane)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("columns", [0, -1, 64.0, True, None, "64"], ids=repr)
def test_other_columns_are_refused(columns: object) -> None:
    """A number of columns that is none is an error of the caller."""
    with refused(None):
        layouts.from_two_bit(np.zeros(4, np.uint32), columns)  # type: ignore[arg-type]  # wrong on purpose
    with refused(None):
        layouts.from_int4(np.zeros(32, np.uint8), columns, 1)  # type: ignore[arg-type]  # wrong on purpose
    with refused(None):
        layouts.from_tq1_0(np.full((1, 52), 128, np.uint8), columns)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("depth", [0, 3, 4, 5, -1, 1.0, True, None], ids=repr)
def test_other_depths_are_no_int4(depth: object) -> None:
    """Int4 pairs hold depths 1 and 2, on the way there and back (XL-4)."""
    with refused("XL-4"):
        layouts.from_int4(np.zeros(1, np.uint8), 2, depth)  # type: ignore[arg-type]  # wrong on purpose
    if depth in (3, 4) and isinstance(depth, int):
        with refused("XL-4"):
            layouts.to_int4(painted(depth=depth))


def test_other_dtypes_are_refused() -> None:
    """Words are uint32, of either byte order; bytes are uint8."""
    t = painted((7, 70), depth=1)
    words = layouts.to_two_bit(t, 0)
    assert np.array_equal(layouts.from_two_bit(words.astype(">u4"), 70), t.levels())
    for dtype in (np.int32, np.uint64, np.uint8, np.float32, object):
        with refused(None):
            layouts.from_two_bit(words.astype(dtype), 70)
    for dtype in (np.int8, np.uint16, bool, object):
        with refused(None):
            layouts.from_int4(layouts.to_int4(t).astype(dtype), 70, 1)
        with refused(None):
            layouts.from_tq1_0(layouts.to_tq1_0(t, 0).astype(dtype), 70)


def test_sizes_may_be_integers_of_numpy() -> None:
    """Unsigned ones, too, which would wrap."""
    t = painted((3, 7), 1)
    assert np.array_equal(layouts.from_two_bit(layouts.to_two_bit(t, 0), np.uint8(7)), t.levels())


def test_layouts_are_made_of_tensors() -> None:
    """An array is refused, and named."""
    array: Any = np.zeros((3, 7), np.int8)
    for make in (lambda: layouts.to_two_bit(array, 0), lambda: layouts.to_int4(array)):
        with pytest.raises(TritError, match="layouts are made of a TritTensor, not of ndarray"):
            make()
