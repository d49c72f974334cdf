"""SPEC 2: levels and the trits they are made of."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .errors import TritError

MAX_DEPTH = 4
BASE = 3

I8 = npt.NDArray[np.int8]


def largest_level(depth: int) -> int:
    """H = (3^depth - 1) / 2, the largest level of *depth* trits (SPEC 2).

    >>> [largest_level(depth) for depth in (1, 2, 3, 4)]
    [1, 4, 13, 40]
    """
    H: int = (BASE**depth - 1) // 2
    return H


def check_depth(depth: int) -> int:
    """*depth* itself, or TritError (TEN-2) where it is no integer from 1 to 4."""
    # "The depth of a trit tensor MUST be 1, 2, 3 or 4."
    if not is_integer(depth) or not 1 <= depth <= MAX_DEPTH:
        raise TritError(f"depth must be an integer from 1 to {MAX_DEPTH}, not {depth!r}", clause="TEN-2")
    return int(depth)


def is_integer(value: object) -> bool:
    """True for Python's and NumPy's integers, not for booleans."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def split(levels: npt.ArrayLike, depth: int) -> I8:
    """The trit planes of *levels*, least significant first (SPEC 2).

    Takes int8 of any shape in -H..H, H = (3^depth - 1) / 2; gives int8 of
    shape (depth, ...) in {-1, 0, +1} with levels = sum of planes[p] * 3^p.

    >>> split(np.array([5, -4], np.int8), 3).tolist()
    [[-1, -1], [-1, -1], [1, 0]]

    Raises TritError (TRIT-2: a level beyond the depth).
    """
    depth = check_depth(depth)
    offset = offset_levels(levels, depth)
    planes = np.empty((depth, *offset.shape), np.uint8)
    rest = offset.reshape(-1)  # no scalar, whose arithmetic would warn where it wraps
    for plane in planes.reshape(depth, -1):
        upper = rest // np.uint8(BASE)
        plane[:] = rest - upper * np.uint8(BASE) - np.uint8(1)  # digit - 1: 255 is -1
        rest = upper
    return planes.view(np.int8)


def join(planes: npt.ArrayLike) -> I8:
    """Levels from trit planes, least significant first; the inverse of `split` (SPEC 2).

    Takes int8 of shape (depth, ...) in {-1, 0, +1}, depth 1 to 4; gives int8.

    >>> join(np.array([[-1], [-1], [1]], np.int8)).tolist()
    [5]

    Raises TritError (TRIT-1: a value that is no trit).
    """
    planes = np.asarray(planes)
    if planes.dtype != np.int8 or planes.ndim < 1:
        raise TritError(f"trit planes must be int8 of shape (depth, ...), not {planes.dtype} {planes.shape}")
    check_depth(len(planes))
    # "A trit MUST be -1, 0 or +1."
    if planes.size and (planes.max() > 1 or planes.min() < -1):
        raise TritError(f"{first_outside(planes, 1)} is no trit (-1, 0 or +1)", clause="TRIT-1")
    levels: I8 = planes[-1, ...].copy()  # of rank 0, too, an array
    for plane in planes[-2::-1]:  # Horner: |partial level| <= 40, within int8
        levels *= np.int8(BASE)
        levels += plane
    return levels


def check_levels(levels: npt.ArrayLike) -> I8:
    """*levels* as an int8 array, or TritError."""
    levels = np.asarray(levels)
    if levels.dtype != np.int8:
        raise TritError(f"levels must be int8, not {levels.dtype}")
    return levels


def offset_levels(levels: npt.ArrayLike, depth: int) -> npt.NDArray[np.uint8]:
    """Levels plus H, as uint8 in 0..3^depth-1: the form whose base-3 digits are trits plus one.

    Raises TritError (TRIT-2) where a level lies outside -H..H.
    """
    levels = check_levels(levels)
    H = largest_level(depth)
    # No value of int8 outside -H..H wraps into 0..2H: k + H modulo 256 is then 2H+1..167 or 168..255.
    offset: npt.NDArray[np.uint8] = levels.view(np.uint8) + np.uint8(H)
    # "A level of depth d MUST lie in -H..H, where H = (3^d - 1)/2."
    if offset.size and offset.max() > 2 * H:
        found = first_outside(levels, H)
        raise TritError(f"level {found} is outside -{H}..{H} (depth {depth})", clause="TRIT-2")
    return offset


def first_outside(values: np.ndarray, largest: int) -> str:
    """Of integers, one of which is outside -largest..largest, the first that is, and where, for messages."""
    first = int(((values > largest) | (values < -largest)).argmax())
    at = tuple(int(i) for i in np.unravel_index(first, values.shape))
    return f"{values[at]} at {at}"
