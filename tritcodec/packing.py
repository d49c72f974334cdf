"""SPEC 3: trit planes packed five rows a byte.

Everything in a trit tensor is packed here. A level `k` of depth `d` is held
as its *offset* form `u = k + H`, a uint8 in 0..3^d-1 whose base-3 digits are
the trits plus one; a code is that form already. The two kernels,
`pack_digits` and `unpack_digits`, take several planes at once; `pack` and
`unpack` are their one-plane case on arrays of any rank.

All arithmetic is uint8 modulo 256. That is exact, because every result is
known to lie in 0..242 (a byte) or 0..80 (digits), whatever wrapped before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from .errors import TritError
from .trits import BASE, largest_level

ROWS_PER_BYTE = 5
ZERO_BYTE = 121  # five trits of 0: 1 + 3 + 9 + 27 + 81
MAX_BYTE = 242  # five digits of 2: 2 * (1 + 3 + 9 + 27 + 81)
BLOCK_WEIGHTS = 1 << 19  # bytes a kernel takes at once, so that its arrays stay in L2

U8 = npt.NDArray[np.uint8]
I8 = npt.NDArray[np.int8]


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
    rows = np.moveaxis(trits, axis, 0)
    packed = np.empty(_resized(trits.shape, axis, packed_rows(len(rows))), np.uint8)
    target = np.moveaxis(packed, axis, 0)
    for start, stop in blocks(rows):
        block = rows[start:stop]
        # "A trit MUST be -1, 0 or +1."
        if block.size and (block.max() > 1 or block.min() < -1):
            _refuse_trits(trits)
        bytes_ = target[start // ROWS_PER_BYTE : packed_rows(stop)]
        _weigh(_filled(block.view(np.uint8), 0), bytes_)
        bytes_ += np.uint8(ZERO_BYTE)  # P(t + 1) = P(t) + P(1)
    return packed


def unpack(packed: npt.ArrayLike, size: int, axis: int = 0) -> I8:
    """Trits of *packed* along *axis*; the inverse of `pack` (SPEC 3.1).

    Takes uint8 with ceil(size / 5) entries along *axis* and gives int8 in
    {-1, 0, +1} with *size*; the first of five is the least significant digit.

    >>> unpack(np.array([[121]], np.uint8), 5).ravel().tolist()
    [0, 0, 0, 0, 0]

    Raises TritError (PACK-2: byte above 242; PACK-3: padding not zero).
    """
    packed = np.asarray(packed)
    if packed.dtype != np.uint8:
        raise TritError(f"packed trits must be uint8, not {packed.dtype}")
    axis = _axis(packed, axis)
    if size < 0 or packed.shape[axis] != packed_rows(size):
        raise TritError(
            f"{size} trits take {packed_rows(size)} bytes along axis {axis}, not {packed.shape[axis]}",
            clause="PACK-1",
        )
    source = np.moveaxis(packed, axis, 0)
    check_plane(source, size)
    trits = np.empty(_resized(packed.shape, axis, size), np.int8)
    target = np.moveaxis(trits, axis, 0)
    for start, stop in blocks(target):
        bytes_ = source[start // ROWS_PER_BYTE : packed_rows(stop)]
        unpack_digits([bytes_], target[start:stop].view(np.uint8), minus=1)
    return trits


def pack_digits(digits: U8, count: int, out: Sequence[U8]) -> None:
    """Pack *digits* into the *count* planes of *out*, least significant first (SPEC 3.2).

    Takes uint8 in 0..3^count-1 of shape (rows, ...), which the caller has
    checked, and *count* uint8 arrays of shape (ceil(rows / 5), ...). A
    missing row is filled with the digits of trit 0, all ones.

    Packing P(u) = sum of u[5r+i] * 3^i is linear, and digit p is
    q_p - 3 * q_(p+1) with q_p = u // 3^p, so plane p is P(q_p) - 3 * P(q_(p+1)).
    """
    digits = _filled(digits, largest_level(count))
    for p, plane in enumerate(out):
        if p:
            digits = digits // np.uint8(BASE)
        _weigh(digits, plane)
    for lower, upper in zip(out, out[1:], strict=False):
        lower -= upper * np.uint8(BASE)


def unpack_digits(planes: Sequence[U8], out: U8, minus: int = 0) -> U8:
    """Digits 0..3^n-1 of *n* packed *planes*, least significant first, in *out* (SPEC 3.2).

    Takes uint8 arrays of shape (ceil(rows / 5), ...) that `check_plane` has
    passed; fills and returns *out*, uint8 of shape (rows, ...). *minus* is
    taken off every result, modulo 256: H gives levels, to be viewed as int8.

    Digit i of byte b is q_i - 3 * q_(i+1) with q_i = b // 3^i, so the planes
    are summed as Q_i = sum of 3^p * (b_p // 3^i) and split into rows once.
    """
    lower = _combine(planes)
    for i in range(ROWS_PER_BYTE - 1):
        planes = [plane // np.uint8(BASE) for plane in planes]
        upper = _combine(planes)
        threefold = upper * np.uint8(BASE)
        if minus:
            threefold += np.uint8(minus)
        target = out[i::ROWS_PER_BYTE]
        np.subtract(lower[: len(target)], threefold[: len(target)], out=target)
        lower = upper
    target = out[ROWS_PER_BYTE - 1 :: ROWS_PER_BYTE]
    np.subtract(lower[: len(target)], np.uint8(minus), out=target)  # b // 3^5 is 0
    return out


def check_plane(packed: U8, rows: int) -> None:
    """Raise TritError where *packed*, (ceil(rows / 5), ...), is no packed plane (SPEC 3.1)."""
    # "Every byte of a packed plane MUST be at most 242."
    if packed.size and packed.max() > MAX_BYTE:
        at = tuple(int(i) for i in np.argwhere(packed > MAX_BYTE)[0])
        raise TritError(f"byte {packed[at]} at {at} is above {MAX_BYTE}", clause="PACK-2")
    # "A trit that pads the last byte row MUST be 0."
    used = rows % ROWS_PER_BYTE
    if used:
        padding = packed[-1] // np.uint8(BASE**used)
        zeros = (BASE ** (ROWS_PER_BYTE - used) - 1) // 2  # every digit 1
        if (padding != zeros).any():
            at = (len(packed) - 1, *(int(i) for i in np.argwhere(padding != zeros)[0]))
            raise TritError(
                f"byte {packed[at]} at {at} pads {ROWS_PER_BYTE - used} missing rows with trits that are not 0",
                clause="PACK-3",
            )


def blocks(rows: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges [start, stop) over axis 0, whole byte rows each, of about BLOCK_WEIGHTS elements."""
    width = max(1, rows[:1].size)
    step = max(1, BLOCK_WEIGHTS // (width * ROWS_PER_BYTE)) * ROWS_PER_BYTE
    for start in range(0, len(rows), step):
        yield start, min(start + step, len(rows))


def _weigh(digits: U8, out: U8) -> None:
    """P(u) into *out*: the sum over i of 3^i * u[5r+i], modulo 256, by Horner's rule."""
    np.multiply(digits[ROWS_PER_BYTE - 1 :: ROWS_PER_BYTE], np.uint8(BASE), out=out)
    for i in range(ROWS_PER_BYTE - 2, 0, -1):
        out += digits[i::ROWS_PER_BYTE]
        out *= np.uint8(BASE)
    out += digits[0::ROWS_PER_BYTE]


def _filled(digits: U8, zero: int) -> U8:
    """*digits* with rows of *zero* appended up to a multiple of five rows."""
    missing = -len(digits) % ROWS_PER_BYTE
    if not missing:
        return digits
    return np.concatenate([digits, np.full((missing, *digits.shape[1:]), zero, np.uint8)])


def _combine(planes: Sequence[U8]) -> U8:
    """The sum over p of 3^p * planes[p], modulo 256, by Horner's rule."""
    total = planes[-1]
    for plane in reversed(planes[:-1]):
        total = total * np.uint8(BASE)
        total += plane
    return total


def _axis(array: np.ndarray, axis: int) -> int:
    if not -array.ndim <= axis < array.ndim:
        raise TritError(f"axis {axis} is outside an array of rank {array.ndim}")
    return axis % array.ndim


def _resized(shape: tuple[int, ...], axis: int, size: int) -> tuple[int, ...]:
    return (*shape[:axis], size, *shape[axis + 1 :])


def _refuse_trits(trits: np.ndarray) -> None:
    at = tuple(int(i) for i in np.argwhere(np.abs(trits.astype(np.int16)) > 1)[0])
    raise TritError(f"{trits[at]} at {at} is no trit (-1, 0 or +1)", clause="TRIT-1")
