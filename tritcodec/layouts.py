"""SPEC 14: exchange layouts, for kernels that do not read five rows a byte.

Arrays in memory, never stored in a file. `to_*` takes a TritTensor, or the
rows of one that `TritFile.get_rows` gives; `from_*` gives trits or levels,
from which `join` and `TritTensor.from_levels` make a tensor again. Nothing is
rounded and nothing depends on the codes: the same scales go with every layout.

All arithmetic is that of unsigned integers whose every result is known to
fit, or is meant modulo 256.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .codebook import CODE_TRITS
from .errors import TritError
from .packing import ROWS_PER_BYTE, THREE, ZERO_BYTE, packed_rows, unpack_digits
from .tensor import TritTensor, row_ranges
from .trits import is_integer, largest_level

BYTE = np.dtype(np.uint8)
WORD = np.dtype("<u4")  # of 16 two-bit trits
UNIT_WORDS = 4  # words that 64 columns take
PAIR = np.dtype("<u2")  # two bytes, the first of them the lower on every machine
LOW_BITS = np.uint32(0x5555_5555)  # the lower bit of every two-bit code in a word
TQ1_0_TRITS = 5  # a byte
TQ1_0_SCALE = 243  # 3^5: bytes of TQ1_0 are fractions v / 243 in units of 1 / 256
BOX_WEIGHTS = 1 << 20  # converted at once: with fewer, NumPy's calls outweigh the caches

U8 = npt.NDArray[np.uint8]
I8 = npt.NDArray[np.int8]
U32 = npt.NDArray[np.uint32]
Place = tuple[int, ...]
Write = Callable[[Sequence[U8], U8], None]  # packed planes (byte rows, columns), out (rows, units, size)
Read = Callable[[U8, Place], U8]  # a box (rows, units, size), its corner: values (rows, columns)


class Layout(NamedTuple):
    """A row is filled up to whole units of *columns* columns, each of *size* bytes."""

    columns: int
    size: int


TWO_BIT, INT4, TQ1_0 = Layout(64, 16), Layout(2, 1), Layout(256, 52)
# Of a TQ1_0 block: first byte, first column, bytes, and trits a byte, which lie as many columns apart.
SECTIONS = ((0, 0, 32, 5), (32, 160, 16, 5), (48, 240, 4, 4))


def to_two_bit(tensor: TritTensor, plane: int) -> U32:
    """The trits t_p of weight plane p = *plane*, two bits each (SPEC 14.1).

    Plane 0 is the least significant. Gives little-endian uint32 words of
    shape (..., 4 * ceil(K / 64)), each of 16 columns, the first in its lowest
    bits: 00 is 0, 01 is +1, 10 is -1.

    >>> levels = np.array([[1, -1, 0, 0, 1]], np.int8)
    >>> steps = np.arange(1, 28, dtype=np.float32)
    >>> t = TritTensor.from_levels(levels, np.zeros((1, 1), np.uint8), steps)
    >>> [hex(word) for word in to_two_bit(t, 0)[0]]
    ['0x109', '0x0', '0x0', '0x0']
    """
    units = _encode(tensor, [_weight_plane(tensor, plane)], TWO_BIT, _write_two_bit)
    return units.reshape(*tensor.shape[:-1], -1).view(WORD)


def from_two_bit(words: npt.ArrayLike, columns: int) -> I8:
    """The trits of a plane of *columns* columns; the inverse of `to_two_bit` (SPEC 14.1).

    Takes uint32 of shape (..., 4 * ceil(columns / 64)) and gives int8 in {-1, 0, +1}
    of shape (..., columns).

    Raises TritError (XL-1: not that many words; XL-2: a code of 3; XL-3: padding not zero).
    """
    # "A plane of R rows and K columns in two bits MUST be R rows of 4*ceil(K/64) little-endian words of
    # 32 bits, with word[r, m] = sum over i = 0..15 of code[r, 16m+i] * 4^i."
    words, row = np.asarray(words), (UNIT_WORDS * _units(columns, TWO_BIT),)
    leading = _leading(words, WORD, row, "XL-1")
    # "A trit that pads a row of two-bit words MUST be 0."
    return _decode(words, leading, columns, TWO_BIT, _read_two_bit, "XL-3")


def to_int4(tensor: TritTensor) -> U8:
    """The levels of a tensor of depth 1 or 2, two a byte (SPEC 14.3).

    Gives uint8 of shape (..., ceil(K / 2)): the even column in the low nibble, the
    odd one in the high, each in two's complement. TritError (XL-4) for another depth.
    """
    _check_tensor(tensor)
    _check_int4_depth(tensor.depth)
    units = _encode(tensor, tensor.planes[: CODE_TRITS - 1 : -1], INT4, _write_int4)
    return units.reshape(*tensor.shape[:-1], -1)


def from_int4(pairs: npt.ArrayLike, columns: int, depth: int) -> I8:
    """The levels of a matrix of *columns* columns; the inverse of `to_int4` (SPEC 14.3).

    Takes uint8 of shape (..., ceil(columns / 2)) and gives int8 in -H..H of
    shape (..., columns).

    Raises TritError (XL-4: no depth of 1 or 2; XL-5: not that many bytes;
    TRIT-2: a level beyond the depth; XL-6: padding not zero).
    """
    _check_int4_depth(depth)
    # "A matrix of R rows and K columns in int4 pairs MUST be R rows of ceil(K/2) bytes, with
    # byte[r, m] = k[r, 2m] mod 16 + 16 * (k[r, 2m+1] mod 16)."
    pairs, row = np.asarray(pairs), (_units(columns, INT4),)
    leading = _leading(pairs, BYTE, row, "XL-5")
    # "A level that pads a row of int4 pairs MUST be 0."
    return _decode(pairs, leading, columns, INT4, partial(_read_int4, depth), "XL-6")


def to_tq1_0(tensor: TritTensor, plane: int) -> U8:
    """The trits t_p of weight plane p = *plane*, as ggml's TQ1_0 holds them (SPEC 14.4).

    Gives uint8 of shape (..., ceil(K / 256), 52): blocks without the
    binary16 scale, which has no counterpart in a trit tensor.
    """
    units = _encode(tensor, [_weight_plane(tensor, plane)], TQ1_0, _write_tq1_0)
    return units.reshape(*tensor.shape[:-1], *units.shape[1:])


def from_tq1_0(blocks: npt.ArrayLike, columns: int) -> I8:
    """The trits of a plane of *columns* columns; the inverse of `to_tq1_0` (SPEC 14.4).

    Takes uint8 of shape (..., ceil(columns / 256), 52) and gives int8 in
    {-1, 0, +1} of shape (..., columns).

    Raises TritError (XL-7: not that many blocks; XL-8: a byte of no five trits;
    XL-9: a fifth trit where there are four; XL-10: padding not zero).
    """
    # "A plane of R rows and K columns in TQ1_0 MUST be R rows of ceil(K/256) blocks of 52 bytes, with
    # byte[r, b, m] = ceil(v * 256 / 243) for the v of the table."
    blocks, row = np.asarray(blocks), (_units(columns, TQ1_0), TQ1_0.size)
    leading = _leading(blocks, BYTE, row, "XL-7")
    # "A trit that pads a row of TQ1_0 blocks MUST be 0."
    return _decode(blocks, leading, columns, TQ1_0, _read_tq1_0, "XL-10")


def _weight_plane(tensor: TritTensor, plane: int) -> U8:
    """The packed plane of the trits t_p."""
    _check_tensor(tensor)
    if not is_integer(plane) or not 0 <= plane < tensor.depth:
        raise TritError(f"plane must be an integer from 0 to {tensor.depth - 1}, not {plane!r}")
    return tensor.planes[CODE_TRITS + tensor.depth - 1 - plane]


def _check_tensor(tensor: TritTensor) -> None:
    if not isinstance(tensor, TritTensor):
        raise TritError(f"layouts are made of a TritTensor, not of {type(tensor).__name__}")


def _check_int4_depth(depth: int) -> None:
    # "A matrix in int4 pairs MUST hold levels of depth 1 or 2."
    if not is_integer(depth) or depth not in (1, 2):
        raise TritError(f"int4 pairs hold levels of depth 1 or 2, not {depth!r}", clause="XL-4")


def _units(columns: int, layout: Layout) -> int:
    """The units that hold *columns* columns."""
    if not is_integer(columns) or columns < 1:
        raise TritError(f"columns must be an integer from 1, not {columns!r}")
    return -(-int(columns) // layout.columns)


def _leading(array: np.ndarray, dtype: np.dtype, row: Place, clause: str) -> Place:
    """The axes of *array* before those of a *row*; TritError for another dtype, or (*clause*) other rows."""
    if array.dtype.newbyteorder("<") != dtype:
        raise TritError(f"the array must be {dtype.name}, not {array.dtype}")
    if array.shape[-len(row) :] != row:
        raise TritError(f"an array of shape {array.shape}: its rows must be {row}", clause=clause)
    return array.shape[: -len(row)]


# Boxes


def _boxes(rows: int, units: int, layout: Layout) -> Iterator[tuple[int, int, int, int]]:
    """Ranges (start, stop, left, right) of rows and units, whole byte rows, of about BOX_WEIGHTS weights."""
    width = max(1, BOX_WEIGHTS // (layout.columns * ROWS_PER_BYTE))
    for left in range(0, units, width):
        right = min(left + width, units)
        for start, stop in row_ranges(rows, (right - left) * layout.columns, BOX_WEIGHTS):
            yield start, stop, left, right


def _encode(tensor: TritTensor, planes: Sequence[U8], layout: Layout, write: Write) -> U8:
    """Bytes (rows, units, size) of packed *planes*, least significant first."""
    rows, units = tensor.form.rows, _units(tensor.form.columns, layout)
    out = np.empty((rows, units, layout.size), np.uint8)
    for start, stop, left, right in _boxes(rows, units, layout):
        byte_rows = slice(start // ROWS_PER_BYTE, packed_rows(stop))
        columns = left * layout.columns, right * layout.columns
        write([_filled_up(plane[byte_rows], *columns) for plane in planes], out[start:stop, left:right])
    return out


def _filled_up(plane: U8, left: int, right: int) -> U8:
    """The columns [left, right) of a packed *plane*; those that it lacks are trits of 0."""
    box = plane[:, left:right]
    missing = right - left - box.shape[1]
    return np.pad(box, ((0, 0), (0, missing)), constant_values=ZERO_BYTE) if missing else box


def _decode(array: np.ndarray, leading: Place, columns: int, layout: Layout, read: Read, padding: str) -> I8:
    """Values (*leading*, *columns*) of the rows in *array*; TritError (*padding*) where padding is not 0."""
    rows, units = math.prod(leading), _units(columns, layout)
    data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).view(np.uint8)
    data, out = data.reshape(rows, units, layout.size), np.empty((rows, columns), np.int8)
    for start, stop, left, right in _boxes(rows, units, layout):
        box = out[start:stop, left * layout.columns : right * layout.columns]
        values = read(data[start:stop, left:right], (start, left, 0)).view(np.int8)
        rest = values[:, box.shape[1] :]
        _refuse(rest, rest != 0, (start, int(columns)), "value", "pads its row, and is not 0", padding)
        box[...] = values[:, : box.shape[1]]
    return out.reshape(*leading, columns)


def _refuse(values: np.ndarray, wrong: np.ndarray, corner: Place, what: str, fault: str, clause: str) -> None:
    """Raise TritError (*clause*) for the first of *values* that is *wrong*; *corner* is where they begin."""
    if wrong.any():
        at = np.unravel_index(int(wrong.argmax()), wrong.shape)
        place = tuple(int(i) + first for i, first in zip(at, corner, strict=True))
        raise TritError(f"{what} {values[at]} at {place} {fault}", clause=clause)


# Fields of two and four bits


def _fields(planes: Sequence[U8], rows: int, bits: int) -> U8:
    """Levels of packed *planes* in two's complement of *bits* bits: 8 / bits a byte, the first lowest."""
    H = largest_level(len(planes))
    fields = unpack_digits(planes, np.empty((rows, planes[0].shape[1]), np.uint8), minus=H)
    fields &= np.uint8(2**bits - 1)
    while bits < 8:
        pairs = fields.view(PAIR)
        pairs |= pairs >> np.uint8(8 - bits)  # beside the lower byte's field goes the upper byte's
        fields, bits = pairs.astype(np.uint8), 2 * bits  # the lower byte alone
    return fields


def _levels(data: U8, bits: int) -> U8:
    """The inverse of `_fields`: int8 levels, as uint8."""
    sign, width = np.uint8(2 ** (bits - 1)), 8
    while width > bits:
        width //= 2
        pairs = data.astype(PAIR)
        pairs |= pairs << np.uint8(8 - width)
        pairs &= np.uint16(0x0101 * (2**width - 1))
        data = pairs.view(np.uint8)
    data ^= sign  # extends the sign: a field f of b bits is (f ^ 2^(b-1)) - 2^(b-1)
    data -= sign
    return data


def _write_two_bit(planes: Sequence[U8], out: U8) -> None:
    words = _fields(planes, len(out), 2).view(WORD)
    # "A two-bit code MUST be 0 for a trit of 0, 1 for +1, and 2 for -1."
    words -= words >> np.uint32(1) & LOW_BITS  # 3, which is -1 in two's complement, to 2
    out[...] = words.view(np.uint8).reshape(out.shape)


def _read_two_bit(data: U8, corner: Place) -> U8:
    words = data.reshape(len(data), -1).view(WORD)
    minus = words >> np.uint32(1) & LOW_BITS
    at = corner[0], corner[1] * UNIT_WORDS
    _refuse(words, words & minus != 0, at, "word", "holds a code of 3, which is no trit", "XL-2")
    words = (words + minus).astype(WORD, copy=False)  # 2 to 3: no code of 3 is there that would carry
    return _levels(words.view(np.uint8), 2)


def _write_int4(planes: Sequence[U8], out: U8) -> None:
    out[...] = _fields(planes, len(out), 4).reshape(out.shape)


def _read_int4(depth: int, data: U8, corner: Place) -> U8:
    H, levels = largest_level(depth), _levels(data.reshape(len(data), -1), 4)
    beyond = levels + np.uint8(H) > 2 * H  # modulo 256: levels below -H come out high
    at = corner[0], corner[1] * INT4.columns
    _refuse(levels.view(np.int8), beyond, at, "level", f"is outside -{H}..{H}", "TRIT-2")
    return levels


# TQ1_0


def _write_tq1_0(planes: Sequence[U8], out: U8) -> None:
    """Blocks of a packed plane, which is not unpacked.

    Row i of a byte b has the digit q_i - 3 * q_(i+1), q_i = b // 3^i, and a TQ1_0 byte's
    V = sum over its columns of 3^(4-n) * digit is linear: that of row i is V(q_i) - 3 * V(q_(i+1)).
    It lies in 0..242, so that arithmetic modulo 256 is exact.
    """
    blocks = planes[0].reshape(-1, TQ1_0.columns)
    values = np.empty((ROWS_PER_BYTE, len(blocks), TQ1_0.size), np.uint8)
    for byte, column, size, trits in SECTIONS:
        columns = blocks[:, column : column + size * trits].reshape(-1, trits, size)
        values[..., byte : byte + size] = _weigh(columns.swapaxes(0, 1))
    values[:-1] -= values[1:] * THREE
    scaled = (values.astype(np.uint16) * 256 + (TQ1_0_SCALE - 1)) // TQ1_0_SCALE  # at most 62,194: it fits
    rows = scaled.astype(np.uint8).reshape(ROWS_PER_BYTE, -1, *out.shape[1:]).swapaxes(0, 1)
    out[...] = rows.reshape(-1, *out.shape[1:])[: len(out)]


def _weigh(packed: U8) -> U8:
    """V(b // 3^i) modulo 256, i = 0 to 4, of *packed* bytes b, (trits, blocks, size): (5, blocks, size)."""
    quotients = np.empty((ROWS_PER_BYTE, *packed.shape), np.uint8)
    quotients[0] = packed
    for i in range(1, ROWS_PER_BYTE):
        np.floor_divide(quotients[i - 1], THREE, out=quotients[i])
    total: U8 = quotients[:, 0].copy()
    for n in range(1, TQ1_0_TRITS):  # Horner
        total *= THREE
        if n < len(packed):  # the last section has no fifth term
            total += quotients[:, n]
    return total


def _read_tq1_0(data: U8, corner: Place) -> U8:
    # 243 * ceil(v * 256 / 243) is 256 * v and a rest of 0 to 242; any other byte leaves a larger rest.
    scaled = data.astype(np.uint16) * TQ1_0_SCALE
    # "A byte of TQ1_0 MUST be ceil(v * 256 / 243) for an integer v in 0..242."
    beyond = scaled.astype(np.uint8) >= TQ1_0_SCALE
    _refuse(data, beyond, corner, "byte", "is ceil(v * 256 / 243) of no v", "XL-8")
    digits = _digits((scaled >> 8).astype(np.uint8))
    byte = SECTIONS[-1][0]
    # "The v of the last four bytes of a TQ1_0 block MUST be a multiple of 3."
    fifth = digits[-1, ..., byte:] != 0
    _refuse(data[..., byte:], fifth, (*corner[:2], byte), "byte", "holds a fifth trit", "XL-9")
    digits -= np.uint8(1)
    return _arranged(digits.reshape(TQ1_0_TRITS, -1, TQ1_0.size)).reshape(len(data), -1)


def _digits(values: U8) -> U8:
    """The five digits of *values* in 0..242, the most significant first: (5, ...)."""
    digits = np.empty((TQ1_0_TRITS, *values.shape), np.uint8)
    for digit in digits[::-1]:
        upper = values // THREE
        np.subtract(values, upper * THREE, out=digit)
        values = upper
    return digits


def _arranged(digits: U8) -> U8:
    """Digits (5, blocks, 52), each in its column: (blocks, 256)."""
    blocks: U8 = np.empty((digits.shape[1], TQ1_0.columns), np.uint8)
    for byte, column, size, trits in SECTIONS:
        run = f"V{size}"  # copied as one: a loop over a few bytes costs more to enter than to run
        columns = blocks[:, column : column + size * trits].view(run)
        columns[...] = digits[:trits, :, byte : byte + size].view(run)[..., 0].T
    return blocks
