"""SPEC 5: the trit tensor: what it holds, what it decodes to, and its truncation."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from .codebook import CODE_TRITS, CODEBOOK_BYTES, FLOATS, check_codebook, check_codes
from .errors import TritError
from .packing import (
    ROWS_PER_BYTE,
    check_plane,
    pack,
    pack_digits,
    packed_rows,
    unpack,
    unpack_box,
    unpack_digits,
)
from .trits import (
    BASE,
    MAX_DEPTH,
    check_depth,
    check_levels,
    first_outside,
    is_integer,
    largest_level,
    offset_levels,
)

MAX_RANK = 8
MAX_ELEMENTS = 1 << 48
MAX_GROUP_SIZE = 65_536
GROUP_SIZE = 16  # the default
BAND_WEIGHTS = 1 << 22  # weights whose codes are unpacked at once: fewer codes do not pay for NumPy's calls
TILE_WEIGHTS = 1 << 19  # of these, weights decoded at once: with fewer, NumPy's calls outweigh the caches

U8 = npt.NDArray[np.uint8]
I8 = npt.NDArray[np.int8]
I16 = npt.NDArray[np.int16]
F32 = npt.NDArray[np.float32]
Block = tuple[int, U8, U8]  # first row, codes (rows, G), offset levels (rows, K)
Decoder = Callable[[U8, I8, np.ndarray], None]  # codes (rows, groups), levels (rows, columns), out


@dataclass(frozen=True, eq=False)
class Form:
    """Everything of a trit tensor but its planes: the fields of its directory entry (SPEC 5.1).

    Construction checks every field and raises TritError with the clause that
    it breaks; whatever holds a Form relies on it.
    """

    shape: tuple[int, ...]
    dtype: str
    depth: int
    shift: int
    group_size: int
    codebook: F32

    def __post_init__(self) -> None:
        check_shape(self.shape)
        object.__setattr__(self, "shape", tuple(int(axis) for axis in self.shape))
        # "A trit tensor MUST have a rank of at least 1 and no axis of 0."
        if not self.shape or 0 in self.shape:
            raise TritError(f"shape {list(self.shape)} has rank 0 or an axis of 0", clause="TEN-1")
        object.__setattr__(self, "depth", check_depth(self.depth))
        # "The sum of depth and shift MUST be at most 4."
        if not is_integer(self.shift) or not 0 <= self.shift <= MAX_DEPTH - self.depth:
            message = f"shift {self.shift!r} with depth {self.depth}: their sum must be at most {MAX_DEPTH}"
            raise TritError(message, clause="TEN-3")
        object.__setattr__(self, "shift", int(self.shift))
        object.__setattr__(self, "group_size", check_group_size(self.group_size))
        # "The dtype of a trit tensor MUST be F32, F16 or BF16."
        if not isinstance(self.dtype, str) or self.dtype not in FLOATS:
            raise TritError(f"dtype {self.dtype!r} is none of {', '.join(FLOATS)}", clause="TEN-5")
        codebook = check_codebook(self.codebook, self.depth, self.shift, self.dtype)
        object.__setattr__(self, "codebook", codebook)

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the trip between processes (pickle) checked, with a read-only codebook."""
        fields = (self.shape, self.dtype, self.depth, self.shift, self.group_size, self.codebook)
        return Form, fields

    @property
    def columns(self) -> int:
        """K, the length of the last axis."""
        return self.shape[-1]

    @property
    def rows(self) -> int:
        """The product of the leading axes; 1 for rank 1."""
        return math.prod(self.shape[:-1])

    @property
    def groups(self) -> int:
        """G = ceil(K / group_size), the groups of a row."""
        return -(-self.columns // self.group_size)

    @property
    def plane_shapes(self) -> list[tuple[int, int]]:
        """(byte rows, columns) of each packed plane, in file order (SPEC 5.2)."""
        height = packed_rows(self.rows)
        return [(height, self.groups)] * CODE_TRITS + [(height, self.columns)] * self.depth

    @property
    def nbytes(self) -> int:
        """Bytes of the packed planes and the codebook."""
        return sum(height * width for height, width in self.plane_shapes) + CODEBOOK_BYTES

    @property
    def bits_per_weight(self) -> float:
        """Bits stored a weight: packed planes and codebook."""
        return 8 * self.nbytes / math.prod(self.shape)

    @property
    def information_bits_per_weight(self) -> float:
        """log2(3) times the trits of weights and codes, a weight: no packing stores fewer bits."""
        return math.log2(BASE) * (self.depth + CODE_TRITS * self.groups / self.columns)

    def truncated(self, depth: int) -> Form:
        """The form of the top *depth* weight planes (SPEC 5.4)."""
        if check_depth(depth) > self.depth:
            raise TritError(f"depth {depth} is more than the {self.depth} planes there are", clause="TEN-2")
        # "The top d' planes of a tensor of depth d MUST be read as a tensor of depth d' whose shift is
        # greater by d - d'."
        return replace(self, depth=depth, shift=self.shift + self.depth - depth)


@dataclass(frozen=True, eq=False, repr=False)
class TritTensor:
    """A tensor of balanced-ternary levels, packed (SPEC 5).

    Immutable, and it keeps the planes that it is given: whoever made them
    leaves them alone. A weight is `step[c] * 3^shift * k`: `k` its level of
    `depth` trits, `c` the code (0..26) of its group of `group_size`
    consecutive weights along the last axis, `step` the tensor's codebook.

    *planes* are uint8 arrays of `form.plane_shapes`: three code planes, least
    significant first, then the weight planes, most significant first.
    Raises TritError (PACK-1, PACK-2, PACK-3) where a plane is no packed plane.
    """

    form: Form
    planes: tuple[U8, ...]

    def __post_init__(self) -> None:
        shapes = self.form.plane_shapes
        if len(self.planes) != len(shapes):
            raise TritError(f"{len(self.planes)} planes, not {len(shapes)}", clause="PACK-1")
        for plane, shape in zip(self.planes, shapes, strict=True):
            if plane.dtype != np.uint8 or plane.shape != shape:
                message = f"a plane is uint8 {shape}, not {plane.dtype} {plane.shape}"
                raise TritError(message, clause="PACK-1")
            check_plane(plane, self.form.rows)
        object.__setattr__(self, "planes", tuple(_read_only(plane) for plane in self.planes))

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the trip between processes (pickle) checked, with read-only planes."""
        return TritTensor, (self.form, self.planes)

    @classmethod
    def from_levels(
        cls,
        levels: npt.ArrayLike,
        codes: npt.ArrayLike,
        codebook: npt.ArrayLike,
        *,
        depth: int | None = None,
        group_size: int = GROUP_SIZE,
        shift: int = 0,
        dtype: str = "F32",
    ) -> TritTensor:
        """The tensor of any encoder's result (SPEC 5.1).

        Takes int8 levels of shape (..., K), uint8 codes of shape (..., G)
        with G = ceil(K / group_size), and 27 float32 steps. *depth* is the
        least that holds the levels unless given; *dtype* ("F32", "F16",
        "BF16") is what `dequantize` gives by default.

        Raises TritError with the clause: a level beyond the depth (TRIT-2),
        a code above 26 (CODE-1), a bad codebook (CB-1 to CB-5) or form (TEN).
        """
        levels, codes = check_levels(levels), check_codes(codes)
        if depth is None:
            depth = _least_depth(levels)
        form = Form(levels.shape, dtype, depth, shift, group_size, np.asarray(codebook))
        if codes.shape != (*levels.shape[:-1], form.groups):
            expected = (*levels.shape[:-1], form.groups)
            raise TritError(f"codes of shape {codes.shape}, not {expected}, one a group")
        return cls.from_blocks(form, _blocks(form, codes, levels))

    @classmethod
    def from_blocks(cls, form: Form, blocks: Iterable[Block]) -> TritTensor:
        """The tensor of *form* whose rows come block by block (SPEC 3.2).

        A block is (first row, codes, offset levels): the first row a multiple
        of 5, uint8 codes (n, G) in 0..26, uint8 levels plus H (n, K). Every
        row must come once; n is a multiple of 5 but in the last block. The blocks are
        trusted: `from_levels` takes what is to be checked.
        """
        planes = [np.empty(shape, np.uint8) for shape in form.plane_shapes]
        for block in blocks:
            pack_block(block, planes)
        return cls(form, tuple(planes))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the decoded tensor."""
        return self.form.shape

    @property
    def dtype(self) -> str:
        """The dtype of the source, "F32", "F16" or "BF16": what `dequantize` gives by default."""
        return self.form.dtype

    @property
    def depth(self) -> int:
        """d, the trits of a weight: 1 to 4."""
        return self.form.depth

    @property
    def shift(self) -> int:
        """The power of 3 that multiplies every step."""
        return self.form.shift

    @property
    def group_size(self) -> int:
        """Consecutive weights along the last axis that share a code."""
        return self.form.group_size

    @property
    def codebook(self) -> F32:
        """The 27 steps, float32, read-only."""
        return self.form.codebook

    @property
    def nbytes(self) -> int:
        """Bytes of the packed planes and the codebook."""
        return self.form.nbytes

    @property
    def bits_per_weight(self) -> float:
        """Bits stored a weight: packed planes and codebook."""
        return self.form.bits_per_weight

    @property
    def information_bits_per_weight(self) -> float:
        """log2(3) times the trits of weights and codes, a weight: no packing stores fewer bits."""
        return self.form.information_bits_per_weight

    @property
    def codes(self) -> U8:
        """The code of every group: uint8 in 0..26, of shape (..., G)."""
        codes = np.empty((self.form.rows, self.form.groups), np.uint8)
        unpack_digits(self.planes[:CODE_TRITS], codes)
        return codes.reshape(*self.shape[:-1], self.form.groups)

    def levels(self) -> I8:
        """The level of every weight: int8 in -H..H, of the tensor's shape (SPEC 2)."""
        levels = np.empty((self.form.rows, self.form.columns), np.uint8)
        unpack_digits(self.planes[: CODE_TRITS - 1 : -1], levels, minus=largest_level(self.depth))
        return levels.view(np.int8).reshape(self.shape)

    def scales(self) -> F32:
        """step[c] * 3^shift of every group: float32, exact, of shape (..., G) (SPEC 5.3)."""
        return self._scale_table()[self.codes]

    def dequantize(self, dtype: npt.DTypeLike | None = None, out: np.ndarray | None = None) -> np.ndarray:
        """The weights (SPEC 5.3): exact in float32, rounded once in float16 and bfloat16.

        *dtype* is "F32", "F16", "BF16" or the NumPy dtype of one; by default
        that of *out*, or else the tensor's own. *out* is filled and returned
        where given: C-contiguous, of the tensor's shape.

        Raises TritError where *dtype* or *out* is unfit, or where a value
        would overflow a *dtype* narrower than the tensor's own (CB-5).
        """
        result = self._output(dtype, out)
        flat = result.reshape(self.form.rows, self.form.columns)
        decode = self._decoder(result.dtype)
        tile = min(max(TILE_WEIGHTS, self.group_size * ROWS_PER_BYTE), self.planes[-1].size * ROWS_PER_BYTE)
        room = np.empty((self.depth + 2) * tile, np.uint8)
        with np.errstate(under="ignore"):  # whatever the caller asks NumPy for
            for start, stop, left, right in self._bands():
                self._decode_band(decode, room, start, left, flat[start:stop, left:right])
        return result

    def truncate(self, depth: int) -> TritTensor:
        """The tensor of the top *depth* weight planes, which it shares (SPEC 5.4).

        Its levels are this tensor's, divided by 3^(d - depth) and correctly rounded.

        Raises TritError (TEN-2) where *depth* is above the tensor's own.
        """
        form = self.form.truncated(depth)
        return TritTensor(form, self.planes[: CODE_TRITS + form.depth])

    def get_rows(self, start: int, stop: int) -> TritTensor:
        """The rows [start, stop) as a tensor of shape (stop - start, K), packed anew.

        Raises TritError for rows outside the tensor.
        """
        start, stop = check_rows(start, stop, self.form.rows)
        form = replace(self.form, shape=(stop - start, self.form.columns))
        return TritTensor(form, tuple(slice_rows(plane, start, stop) for plane in self.planes))

    def __repr__(self) -> str:
        return (
            f"TritTensor(shape={self.shape}, dtype={self.dtype}, depth={self.depth}, shift={self.shift}, "
            f"group_size={self.group_size}, bits_per_weight={self.bits_per_weight:.3f})"
        )

    def _scale_table(self) -> F32:
        # step * 3^shift is exact in binary32: 18 significant bits times at most 27, 5 bits.
        table: F32 = self.codebook * np.float32(BASE**self.shift)
        return table

    def _output(self, dtype: npt.DTypeLike | None, out: np.ndarray | None) -> np.ndarray:
        if out is not None and not isinstance(out, np.ndarray):
            raise TritError(f"out must be an array, not {type(out).__name__}")
        if dtype is None:
            dtype = self.dtype if out is None else out.dtype
        name = float_name(dtype)
        # "A reader MAY refuse to decode to a dtype in which the largest value of CB-5 would not be finite."
        check_codebook(self.codebook, self.depth, self.shift, name)
        if out is None:
            return np.empty(self.shape, FLOATS[name])
        if not out.flags.writeable:
            raise TritError("out is read-only")
        if out.shape != self.shape or out.dtype != FLOATS[name] or not out.flags.c_contiguous:
            strides = "" if out.flags.c_contiguous else f" with strides {out.strides}"
            wanted = f"C-contiguous {FLOATS[name]} {self.shape}"
            raise TritError(f"out must be {wanted}, not {out.dtype} {out.shape}{strides}")
        return out

    def _bands(self) -> Iterator[tuple[int, int, int, int]]:
        """Ranges (start, stop, left, right) of about BAND_WEIGHTS weights, whole groups and byte rows."""
        form = self.form
        width = max(1, TILE_WEIGHTS // (form.group_size * ROWS_PER_BYTE)) * form.group_size
        for left in range(0, form.columns, width):
            right = min(left + width, form.columns)
            for start, stop in row_ranges(form.rows, right - left, BAND_WEIGHTS):
                yield start, stop, left, right

    def _decode_band(self, decode: Decoder, room: U8, start: int, left: int, out: np.ndarray) -> None:
        """Write into *out* the weights of as many rows from *start* and columns from *left*.

        *room* is for the levels of a tile and what they come from: one array
        for all tiles, which the system need not page in each time.
        """
        height, width = out.shape
        first, last = left // self.group_size, -(-(left + width) // self.group_size)
        codes = np.empty((height, last - first), np.uint8)
        unpack_digits(_cut(self.planes[:CODE_TRITS], start, first, codes), codes)
        planes = self.planes[: CODE_TRITS - 1 : -1]
        for top, end in row_ranges(height, width, TILE_WEIGHTS):
            levels = room[: (end - top) * width].reshape(-1, width)
            box = _cut(planes, start + top, left, levels)
            unpack_box(box, levels, room[levels.size :], minus=largest_level(self.depth))
            decode(codes[top:end], levels.view(np.int8), out[top:end])

    def _decoder(self, dtype: np.dtype) -> Decoder:
        """The function that writes weights of *dtype*, given their codes and levels."""
        scales, H = self._scale_table()[:, None], largest_level(self.depth)
        size = min(self.group_size, self.form.columns)
        if dtype == np.float32:
            return partial(_multiply, np.repeat(scales, size, axis=1))
        values = (scales * np.arange(-H, H + 1, dtype=np.float32)).astype(dtype)
        zeros = np.arange(H, values.size, 2 * H + 1, dtype=np.int16)[:, None]  # where a code's level is 0
        return partial(_look_up, values, np.repeat(zeros, size, axis=1))


def _blocks(form: Form, codes: U8, levels: I8) -> Iterator[Block]:
    """*codes* and *levels* block by block; raises TritError (TRIT-2) for a level beyond the depth."""
    code_rows, rows = codes.reshape(form.rows, form.groups), levels.reshape(form.rows, form.columns)
    for start, stop in row_blocks(form):
        try:
            offsets = offset_levels(rows[start:stop], form.depth)
        except TritError:  # which says where in the block
            offset_levels(levels, form.depth)
            raise
        yield start, code_rows[start:stop], offsets


def pack_block(block: Block, planes: Sequence[U8]) -> None:
    """Pack a block of rows into its place in *planes*, those of `Form.plane_shapes`."""
    start, codes, offsets = block
    first, last = start // ROWS_PER_BYTE, packed_rows(start + len(codes))
    parts = [plane[first:last] for plane in planes]
    pack_digits(codes, CODE_TRITS, parts[:CODE_TRITS])
    pack_digits(offsets, len(planes) - CODE_TRITS, parts[: CODE_TRITS - 1 : -1])


def row_blocks(form: Form) -> Iterator[tuple[int, int]]:
    """Ranges [start, stop) of rows, whole byte rows each, of about TILE_WEIGHTS weights."""
    return row_ranges(form.rows, form.columns, TILE_WEIGHTS)


def array_rows(array: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Rows [start, stop) of an *array* of any strides, its leading axes as one: (n, K)."""
    if array.ndim <= 2 or array.flags.c_contiguous:  # the reshape is a view
        return array.reshape(math.prod(array.shape[:-1]), array.shape[-1])[start:stop]
    # By index: to reshape other strides would copy the whole.
    return array[np.unravel_index(np.arange(start, stop), array.shape[:-1])]


def row_ranges(rows: int, columns: int, weights: int) -> Iterator[tuple[int, int]]:
    """Ranges [start, stop) of *rows*, whole byte rows each, of about that many *weights*."""
    step = max(1, weights // (columns * ROWS_PER_BYTE)) * ROWS_PER_BYTE
    for start in range(0, rows, step):
        yield start, min(start + step, rows)


def check_shape(shape: Sequence[int]) -> None:
    """Raise TritError where *shape* is no shape of a tensor (SPEC 5.1)."""
    if not all(is_integer(axis) and axis >= 0 for axis in shape):
        raise TritError(f"shape {list(shape)} holds other than integers from 0 on", clause="TYPE-1")
    # "The rank of a tensor MUST be at most 8."
    if len(shape) > MAX_RANK:
        raise TritError(f"rank {len(shape)} is above {MAX_RANK}", clause="SHAPE-1")
    # "The product of a tensor's non-zero axes MUST be at most 2^48."
    if math.prod(int(axis) for axis in shape if axis) > MAX_ELEMENTS:  # Python integers: nothing wraps
        raise TritError(f"shape {list(shape)} has more than 2^48 elements", clause="SHAPE-2")


def check_group_size(group_size: int) -> int:
    """*group_size* itself, or TritError (TEN-4) where it is no integer from 1 to 65,536."""
    # "The group size MUST lie in 1..65536."
    if not is_integer(group_size) or not 1 <= group_size <= MAX_GROUP_SIZE:
        message = f"group size must be an integer from 1 to {MAX_GROUP_SIZE}, not {group_size!r}"
        raise TritError(message, clause="TEN-4")
    return int(group_size)


def check_rows(start: int, stop: int, rows: int) -> tuple[int, int]:
    """(start, stop) as Python integers, or TritError where rows [start, stop) are none of *rows*."""
    if not (is_integer(start) and is_integer(stop)):
        raise TritError(f"rows are given by two integers, not {start!r} and {stop!r}")
    if not 0 <= start < stop <= rows:
        raise TritError(f"rows [{start}, {stop}) are none, or not within the {rows} rows there are")
    return int(start), int(stop)


def slice_rows(plane: U8, start: int, stop: int) -> U8:
    """The packed plane of rows [start, stop) of a packed *plane*, (byte rows, columns)."""
    first, last = start // ROWS_PER_BYTE, packed_rows(stop)
    block = plane[first:last]
    if start % ROWS_PER_BYTE == 0 and stop % ROWS_PER_BYTE == 0:
        return block
    trits = unpack(block, len(block) * ROWS_PER_BYTE)
    return pack(trits[start - first * ROWS_PER_BYTE : stop - first * ROWS_PER_BYTE])


def float_name(dtype: npt.DTypeLike) -> str:
    """The name, "F32", "F16" or "BF16", of a float dtype or its name; else TritError (TEN-5)."""
    with contextlib.suppress(TypeError):  # of what is no dtype at all
        for name, known in FLOATS.items():
            if dtype == name or (not isinstance(dtype, str) and np.dtype(dtype) == known):
                return name
    raise TritError(f"dtype {dtype} is none of {', '.join(FLOATS)}", clause="TEN-5")


def _cut(planes: Sequence[U8], start: int, left: int, out: U8) -> list[U8]:
    """What of packed *planes* holds as many digits as *out*, from row *start* and column *left* on."""
    box = slice(start // ROWS_PER_BYTE, packed_rows(start + len(out))), slice(left, left + out.shape[1])
    return [plane[box] for plane in planes]


def _multiply(scales: F32, codes: U8, levels: I8, out: np.ndarray) -> None:
    """Write scales[c] * k into *out*, float32; a row of *scales*, (27, size), holds one value.

    "A weight MUST decode to step[c] * 3^shift * k, exactly, in binary32.": 18 significant bits
    times an integer of at most 40, 6 bits, fit in 24, so that no product rounds.
    "A weight of level 0 MUST decode to +0." It does, for an integer 0 has no sign.
    """
    fits = out.flags.c_contiguous and out.shape[1] % scales.shape[1] == 0
    spread = _spread(scales, codes, out if fits else None)
    np.multiply(spread[:, : out.shape[1]], levels, out=out)


def _look_up(values: np.ndarray, zeros: I16, codes: U8, levels: I8, out: np.ndarray) -> None:
    """Write values[zeros[c] + k] into *out*, 16 bits a weight: looking up is four times as fast as casting.

    "A weight decoded to binary16 or bfloat16 MUST be the exact value rounded once, to nearest,
    ties to even.": once, where *values* was cast; it holds all there are, at most 27 * 81.
    """
    index = _spread(zeros, codes)[:, : out.shape[1]]
    index += levels
    values.take(index, mode="clip", out=out)


def _spread(table: np.ndarray, codes: U8, out: np.ndarray | None = None) -> np.ndarray:
    """table[c] of codes (n, groups), side by side: (n, groups * size) for a *table* (27, size)."""
    size = table.shape[1]
    if out is None:
        out = np.empty((len(codes), codes.shape[1] * size), table.dtype)
    # Codes are below 27, so nothing clips: the mode lets NumPy write into *out* at once.
    table.take(codes, axis=0, mode="clip", out=out.reshape(*codes.shape, size))
    return out


def _read_only(plane: U8) -> U8:
    view: U8 = plane.view()
    view.flags.writeable = False
    return view


def _least_depth(levels: np.ndarray) -> int:
    largest = max(int(levels.max()), -int(levels.min())) if levels.size else 0
    for depth in range(1, MAX_DEPTH + 1):
        if largest <= largest_level(depth):
            return depth
    found = first_outside(levels, largest_level(MAX_DEPTH))
    raise TritError(f"level {found} is beyond depth {MAX_DEPTH}", clause="TRIT-2")
