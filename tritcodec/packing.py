"""SPEC 3: trit planes packed five rows a byte.

Everything in a trit tensor is packed here. A level `k` of depth `d` is held
as its *offset* form `u = k + H`, a uint8 in 0..3^d-1 whose base-3 digits are
the trits plus one; a code is that form already. The two kernels,
`pack_digits` and `unpack_digits`, take several planes at once; `pack` and
`unpack` are the one-plane case, with the checks that a caller's arrays need.

All arithmetic is uint8 modulo 256. That is exact, because every result is
known to lie in 0..242 (a byte) or 0..80 (digits), whatever wrapped before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise, product

import numpy as np
import numpy.typing as npt

from .errors import TritError
from .trits import BASE, first_outside, is_integer, largest_level

ROWS_PER_BYTE = 5
ZERO_BYTE = 121  # five trits of 0: 1 + 3 + 9 + 27 + 81
MAX_BYTE = 242  # five digits of 2: 2 * (1 + 3 + 9 + 27 + 81)
SHORT_AXIS = 6  # bytes: a shorter inner loop costs more to enter than to run
BOX_BYTES = 1 << 17  # packed bytes a kernel takes at once: with fewer, NumPy's calls outweigh the caches

U8 = npt.NDArray[np.uint8]
I8 = npt.NDArray[np.int8]
Box = tuple[slice, ...]
THREE = np.array(BASE, np.uint8)  # of rank 0: a call takes half as long as with a scalar


def packed_rows(rows: int) -> int:
    """Byte rows that hold *rows* rows of trits: ceil(rows / 5)."""
    return -(-rows // ROWS_PER_BYTE)


def pack(trits: npt.ArrayLike, axis: int = 0) -> U8:
    """Trits packed five to a byte along *axis*; the inverse of `unpack` (SPEC 3.1).

    Takes int8 in {-1, 0, +1}, of any rank from 1 and with any strides; gives
    uint8 with ceil(size / 5) entries along *axis*. The first of five is the
    least significant digit; the last byte is filled up with trits of 0.

    >>> pack(np.array([1, 0, -1, 0, 0, 1], np.int8)).tolist()
    [113, 122]

    Raises TritError (TRIT-1: a value that is no trit).
    """
    trits = np.asarray(trits)
    if trits.dtype != np.int8:
        raise TritError(f"trits must be int8, not {trits.dtype}")
    axis = _axis(trits, axis)
    # "A plane of R rows and C columns MUST be packed as ceil(R/5) rows of C bytes, in C order, with
    # byte[r, j] = sum over i = 0..4 of (t[5r+i, j] + 1) * 3^i."
    packed = np.empty(_resized(trits.shape, axis, packed_rows(trits.shape[axis])), np.uint8)
    for byte_box, box in boxes(trits, axis):
        if byte_box[-1].start == 0:
            _check_trits(trits, box[:-1])  # by whole rows: boxes may be narrow
        bytes_ = packed[byte_box]
        _weigh(trits[box].view(np.uint8).swapaxes(0, axis), 0, bytes_.swapaxes(0, axis))
        bytes_ += np.uint8(ZERO_BYTE)  # P(t + 1) = P(t) + P(1)
    return packed


def unpack(packed: npt.ArrayLike, size: int, axis: int = 0) -> I8:
    """Trits of *packed* along *axis*; the inverse of `pack` (SPEC 3.1).

    Takes uint8 with ceil(size / 5) entries along *axis* and gives int8 in
    {-1, 0, +1} with *size*; the first of five is the least significant digit.

    >>> unpack(np.array([[121]], np.uint8), 5).ravel().tolist()
    [0, 0, 0, 0, 0]

    Raises TritError (PACK-1: not that many entries; PACK-2: byte above 242;
    PACK-3: padding not zero).
    """
    packed = np.asarray(packed)
    if packed.dtype != np.uint8:
        raise TritError(f"packed trits must be uint8, not {packed.dtype}")
    axis = _axis(packed, axis)
    if not is_integer(size) or size < 0:
        raise TritError(f"size must be an integer from 0, not {size!r}")
    size = int(size)
    # "A plane of R rows and C columns MUST be packed as ceil(R/5) rows of C bytes, in C order, with
    # byte[r, j] = sum over i = 0..4 of (t[5r+i, j] + 1) * 3^i."
    if packed.shape[axis] != packed_rows(size):
        message = f"{size} trits take {packed_rows(size)} bytes along axis {axis}, not {packed.shape[axis]}"
        raise TritError(message, clause="PACK-1")
    check_plane(np.moveaxis(packed, axis, 0), size)
    trits = np.empty(_resized(packed.shape, axis, size), np.uint8)
    return unpack_digits([packed], trits, minus=1, axis=axis).view(np.int8)


def pack_digits(digits: U8, count: int, out: Sequence[U8]) -> None:
    """Pack *digits* into the *count* planes of *out*, least significant first (SPEC 3.2).

    Takes uint8 in 0..3^count-1 of shape (rows, ...), which the caller has
    checked, and *count* uint8 arrays of shape (ceil(rows / 5), ...). A
    missing row is filled with the digits of trit 0, all ones.

    Packing P(u) = sum of u[5r+i] * 3^i is linear, and digit p is
    q_p - 3 * q_(p+1) with q_p = u // 3^p, so plane p is P(q_p) - 3 * P(q_(p+1)).
    """
    for byte_box, box in boxes(digits):
        quotient, zero = digits[box], largest_level(count)
        planes = [plane[byte_box] for plane in out]
        _weigh(quotient, zero, planes[0])
        for lower, upper in pairwise(planes):
            quotient, zero = quotient // THREE, zero // BASE
            _weigh(quotient, zero, upper)
            lower -= upper * THREE


def unpack_digits(planes: Sequence[U8], out: U8, minus: int = 0, axis: int = 0) -> U8:
    """Digits 0..3^n-1 of *n* packed *planes*, least significant first, in *out* (SPEC 3.2).

    Takes uint8 arrays with ceil(size / 5) entries along *axis* that
    `check_plane` has passed; fills and returns *out*, uint8 with *size*.
    *minus* is taken off every result, modulo 256: H gives levels, to be
    viewed as int8.
    """
    # One array serves all boxes: large ones may go back to the system, and fault in page by page again.
    work = np.empty((len(planes) + 1) * ROWS_PER_BYTE * min(BOX_BYTES, planes[0].size), np.uint8)
    for byte_box, box in boxes(out, axis):
        unpack_box([plane[byte_box] for plane in planes], out[box], work, minus, axis)
    return out


def unpack_box(planes: Sequence[U8], out: U8, work: U8, minus: int = 0, axis: int = 0) -> None:
    """`unpack_digits` in one piece; *work* is uint8, 5 * (n + 1) times the size of a plane or more.

    Digit i of byte b is q_i - 3 * q_(i+1) with q_i = b // 3^i, so the planes
    are summed as Q_i = sum over p of 3^p * q_(p,i) and split into rows once.
    """
    n, shape = len(planes), planes[0].shape
    work = work[: (n + 1) * ROWS_PER_BYTE * planes[0].size].reshape(n + 1, ROWS_PER_BYTE, *shape)
    threefold, q = work[0], work[1:]
    for p, plane in enumerate(planes):
        q[p, 0] = plane
    for i in range(1, ROWS_PER_BYTE):
        np.floor_divide(q[:, i - 1], THREE, out=q[:, i])
    Q = q[n - 1]
    for p in reversed(range(n - 1)):  # Horner
        Q *= THREE
        Q += q[p]
    upper = threefold[:-1]
    np.multiply(Q[1:], THREE, out=upper)
    upper += np.uint8(minus)
    threefold[-1] = minus  # b // 3^5 is 0
    out, Q, threefold = out.swapaxes(0, axis), Q.swapaxes(1, axis + 1), threefold.swapaxes(1, axis + 1)
    whole, rest = divmod(len(out), ROWS_PER_BYTE)
    fives = out[: whole * ROWS_PER_BYTE].reshape(whole, ROWS_PER_BYTE, *out.shape[1:])
    np.subtract(Q[:, :whole], threefold[:, :whole], out=fives.swapaxes(0, 1))
    if rest:
        np.subtract(Q[:rest, whole], threefold[:rest, whole], out=out[-rest:])


def check_plane(packed: U8, rows: int) -> None:
    """Raise TritError where *packed*, (ceil(rows / 5), ...), is no packed plane (SPEC 3.1)."""
    at = invalid_byte(packed)
    if at is not None:
        value, place = packed.flat[at], tuple(int(i) for i in np.unravel_index(at, packed.shape))
        raise TritError(f"byte {value} at {place} is above {MAX_BYTE}", clause="PACK-2")
    at = invalid_padding(packed[-1:], rows)
    if at is not None:
        value, place = packed[-1].flat[at], tuple(int(i) for i in np.unravel_index(at, packed.shape[1:]))
        message = f"byte {value} at {(len(packed) - 1, *place)} pads missing rows with trits that are not 0"
        raise TritError(message, clause="PACK-3")


def invalid_byte(packed: U8) -> int | None:
    """The index in C order of the first byte above 242, or None (PACK-2)."""
    # "Every byte of a packed plane MUST be at most 242."
    if not packed.size or packed.max() <= MAX_BYTE:
        return None
    return int((packed > MAX_BYTE).argmax())


def invalid_padding(last: U8, rows: int) -> int | None:
    """The index of the first byte of the *last* byte row that is not padded with 0, or None (PACK-3)."""
    # "A trit that pads the last byte row MUST be 0."
    used = rows % ROWS_PER_BYTE
    if not used or not last.size:
        return None
    least = largest_level(ROWS_PER_BYTE - used) * BASE**used  # every padding digit 1, the others 0
    most = least + BASE**used - 1  # the others 2
    if last.min() >= least and last.max() <= most:
        return None
    wrong = (last < least) | ((last > most) & (last <= MAX_BYTE))  # above 242 a byte has no trits: PACK-2
    return int(wrong.argmax()) if wrong.any() else None


def boxes(array: np.ndarray, axis: int = 0) -> Iterator[tuple[Box, Box]]:
    """Boxes of at most BOX_BYTES bytes that cover *array*, packed along *axis*.

    Gives pairs: a box of the packed array, and the box of *array* that it
    holds, which may reach beyond the end. The axes that lie closest in memory
    are whole where they fit; but a short one is cut up, so that NumPy's inner
    loop runs along a longer one.
    """
    packed = _resized(array.shape, axis, packed_rows(array.shape[axis]))
    order = sorted(range(array.ndim), key=lambda i: abs(array.strides[i]))
    room, sides = BOX_BYTES, list(packed)
    if packed[order[0]] < SHORT_AXIS:
        sides[order[0]] = 1
    for i in order:
        sides[i] = max(1, min(sides[i], room))
        room //= sides[i]
    for corner in product(*(range(0, length, side) for length, side in zip(packed, sides, strict=True))):
        box = [slice(start, start + side) for start, side in zip(corner, sides, strict=True)]
        wide = slice(box[axis].start * ROWS_PER_BYTE, box[axis].stop * ROWS_PER_BYTE)
        yield tuple(box), (*box[:axis], wide, *box[axis + 1 :])


def _weigh(digits: U8, zero: int, out: U8) -> None:
    """P(u) into *out*: the sum over i of 3^i * u[5r+i], modulo 256; a missing row counts as *zero*."""
    whole, rest = divmod(len(digits), ROWS_PER_BYTE)
    fives = digits[: whole * ROWS_PER_BYTE].reshape(whole, ROWS_PER_BYTE, *digits.shape[1:])
    _horner([fives[:, i] for i in range(ROWS_PER_BYTE)], out[:whole])
    if rest:
        missing = [np.uint8(zero)] * (ROWS_PER_BYTE - rest)
        _horner([*digits[-rest:, None], *missing], out[whole:])


def _horner(terms: Sequence[U8 | np.uint8], out: U8) -> None:
    """The sum over i of 3^i * terms[i] into *out*, modulo 256."""
    np.multiply(terms[-1], THREE, out=out)
    for term in terms[-2:0:-1]:
        out += term
        out *= THREE
    out += terms[0]


def _axis(array: np.ndarray, axis: int) -> int:
    if not is_integer(axis) or not -array.ndim <= axis < array.ndim:
        raise TritError(f"axis must be an integer within an array of rank {array.ndim}, not {axis!r}")
    return axis % array.ndim


def _resized(shape: tuple[int, ...], axis: int, size: int) -> tuple[int, ...]:
    return (*shape[:axis], size, *shape[axis + 1 :])


def _check_trits(trits: np.ndarray, box: Box) -> None:
    part = trits[box]
    # "A trit MUST be -1, 0 or +1."
    if part.max() > 1 or part.min() < -1:
        raise TritError(f"{first_outside(trits, 1)} is no trit (-1, 0 or +1)", clause="TRIT-1")
