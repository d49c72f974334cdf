"""SPEC 2: levels and trits, all of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import I8, largest, refused

from tritcodec import join, split
from tritcodec.trits import check_depth, largest_level, offset_levels

DEPTHS = range(1, 5)


def digits(k: int, depth: int) -> list[int]:
    """The trits of *k*, one after the other: each is what has to be taken off to leave a multiple of 3."""
    trits = []
    for _ in range(depth):
        trits.append((k + 1) % 3 - 1)
        k = (k - trits[-1]) // 3
    assert k == 0
    return trits


@pytest.mark.parametrize("depth", DEPTHS)
def test_split_gives_the_trits_of_every_level(depth: int) -> None:
    """Every level of a depth splits into the trits that plain division finds, the least significant first."""
    H = largest(depth)
    levels = np.arange(-H, H + 1, dtype=np.int8)
    planes = split(levels, depth)
    assert planes.dtype == np.int8
    assert planes.T.tolist() == [digits(k, depth) for k in range(-H, H + 1)]


@pytest.mark.parametrize("depth", DEPTHS)
def test_join_gives_the_level_of_all_trits(depth: int) -> None:
    """Every combination of trits joins to the sum of t_p * 3^p, each level in exactly one way."""
    trits = list(itertools.product((-1, 0, 1), repeat=depth))
    levels = join(np.array(trits, np.int8).T)
    assert levels.dtype == np.int8
    assert levels.tolist() == [sum(t * 3**p for p, t in enumerate(number)) for number in trits]
    assert sorted(levels.tolist()) == list(range(-largest(depth), largest(depth) + 1))


@pytest.mark.parametrize("depth", DEPTHS)
def test_largest_level(depth: int) -> None:
    """H is the level whose trits are all +1."""
    assert largest_level(depth) == largest(depth)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (5,), (2, 3, 4), (1,) * 8], ids=str)
@pytest.mark.parametrize("depth", DEPTHS)
def test_split_and_join_keep_the_shape(shape: tuple[int, ...], depth: int) -> None:
    """Levels of any shape split into (depth, ...) and join again; neither changes its input."""
    levels = np.resize(np.arange(-largest(depth), largest(depth) + 1, dtype=np.int8), shape)
    before = levels.copy()
    planes = split(levels, depth)
    assert planes.shape == (depth, *shape)
    kept = planes.copy()
    assert np.array_equal(join(planes), before)
    assert np.array_equal(levels, before)
    assert np.array_equal(planes, kept)


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_single_level_of_rank_0(depth: int) -> None:
    """An array of rank 0 is of any shape, too: it splits into (depth,), which joins to an array of rank 0."""
    for k in range(-largest(depth), largest(depth) + 1):
        planes = split(np.array(k, np.int8), depth)
        assert planes.tolist() == digits(k, depth)
        level = join(planes)
        assert isinstance(level, np.ndarray)
        assert (level.dtype, level.tolist()) == (np.dtype(np.int8), k)


@pytest.mark.parametrize(
    "view",
    [lambda a: a.T, lambda a: a[::-1], lambda a: a[::2, ::3], lambda a: np.broadcast_to(a[0], a.shape)],
    ids=["transposed", "reversed", "strided", "broadcast, read-only"],
)
def test_split_takes_any_strides(view: Callable[[I8], I8]) -> None:
    """What levels lie in memory like makes no difference."""
    levels = view(np.arange(-40, 40, dtype=np.int8).reshape(8, 10))
    assert np.array_equal(split(levels, 4), split(levels.copy(), 4))
    assert np.array_equal(join(split(levels, 4)), levels)


@pytest.mark.parametrize("depth", DEPTHS)
def test_every_level_outside_the_range_is_refused(depth: int) -> None:
    """Each int8 outside -H..H is refused with TRIT-2, and the message has the level and its place."""
    outside = [k for k in range(-128, 128) if abs(k) > largest(depth)]
    assert len(outside) == 256 - 3**depth
    for k in outside:
        levels = np.zeros((2, 3), np.int8)
        levels[1, 2] = k
        with refused("TRIT-2") as caught:
            split(levels, depth)
        assert f"level {k} at (1, 2)" in caught.value.message


def test_every_value_that_is_no_trit_is_refused() -> None:
    """Each int8 but -1, 0 and +1 is refused with TRIT-1 in every plane."""
    for value, plane in itertools.product(range(-128, 128), range(4)):
        planes = np.zeros((4, 2), np.int8)
        planes[plane, 1] = value
        if abs(value) > 1:
            with refused("TRIT-1"):
                join(planes)
        else:
            assert join(planes).tolist() == [0, value * 3**plane]


WRONG_DTYPES = ["uint8", "int16", ">i2", "int64", "bool", "float32", "complex64", "U1", "O"]


@pytest.mark.parametrize("dtype", WRONG_DTYPES)
def test_levels_and_planes_are_int8(dtype: str) -> None:
    """Any dtype but int8 is refused, whatever its values, and named in the message."""
    for call in (lambda a: split(a, 2), join, lambda a: offset_levels(a, 2)):
        with refused(None) as caught:
            call(np.zeros((2, 3), np.int8).astype(dtype))
        assert str(np.dtype(dtype)) in caught.value.message


def test_a_list_is_not_int8() -> None:
    """A list of integers becomes int64, which is refused: nothing is narrowed unseen."""
    with refused(None):
        split([1, 0, -1], 1)


@pytest.mark.parametrize(
    "depth", [0, 5, -1, 2**64, True, False, 2.0, "2", None, [2], np.float32(2), np.True_], ids=repr
)
def test_a_depth_is_an_integer_from_1_to_4(depth: Any) -> None:
    """What is no integer from 1 to 4 is refused with TEN-2, and shown in the message."""
    for call in (check_depth, lambda depth: split(np.zeros(3, np.int8), depth)):
        with refused("TEN-2") as caught:
            call(depth)
        assert repr(depth) in caught.value.message


@pytest.mark.parametrize("kind", [int, np.int8, np.uint64])
def test_numpy_integers_are_depths(kind: type) -> None:
    """Integers of NumPy are depths, and become integers of Python."""
    for depth in DEPTHS:
        assert type(check_depth(kind(depth))) is int
        assert check_depth(kind(depth)) == depth


@pytest.mark.parametrize(("shape", "clause"), [((), None), ((0, 3), "TEN-2"), ((5, 3), "TEN-2")], ids=str)
def test_join_takes_one_to_four_planes(shape: tuple[int, ...], clause: str | None) -> None:
    """Planes of rank 0, and none or five of them, are refused."""
    with refused(clause):
        join(np.zeros(shape, np.int8))


def test_the_ends_of_the_range_are_within_it() -> None:
    """What is named is the first level beyond H, not one that is -H or H."""
    with refused("TRIT-2") as caught:
        split(np.array([-4, 4, 5, -5], np.int8), 2)
    assert "level 5 at (2,)" in str(caught.value)
