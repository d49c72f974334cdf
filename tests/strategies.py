"""Hypothesis strategies of what the format holds, and the settings of the tests that use them."""

from __future__ import annotations

from typing import Any

import numpy as np
from helpers import F32, FORMS, float32, largest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from tritcodec.header import RAW_DTYPES, Entry, RawEntry, TritEntry
from tritcodec.tensor import Form, TritTensor

quick = settings(deadline=None, max_examples=60)  # no deadline: the machine may be busy

GROUP_SIZES = st.sampled_from([1, 2, 3, 5, 16, 17, 65_536])
HIDDEN = [*range(0x20), *range(0x7F, 0xA0), *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xFEFF]  # NAME-2


def names() -> SearchStrategy[str]:
    """Names of tensors and metadata keys that NAME-1 and NAME-2 allow."""
    characters = st.characters(exclude_categories=["Cs"], exclude_characters="".join(map(chr, HIDDEN)))
    return st.text(characters, min_size=1, max_size=100).filter(lambda name: len(name.encode()) <= 512)


@st.composite
def codebooks(draw: DrawFn) -> F32:
    """Codebooks that fit every dtype, depth and shift: the largest value is at most 40 * 1024."""
    lowest, highest = 0x0080_0000 // 64, 0x4480_0000 // 64  # the least normal number, and 1024
    chosen = draw(st.lists(st.integers(lowest, highest), min_size=27, max_size=27, unique=True))
    return float32(*(64 * pattern for pattern in sorted(chosen)))


@st.composite
def tensors(draw: DrawFn) -> TritTensor:
    """Small trit tensors of any form."""
    depth, shift = draw(st.sampled_from(FORMS))
    shape = (*draw(st.lists(st.integers(1, 4), max_size=2)), draw(st.integers(1, 40)))
    group_size = draw(GROUP_SIZES)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    H = largest(depth)
    return TritTensor.from_levels(
        rng.integers(-H, H, shape, np.int8, endpoint=True),
        rng.integers(0, 27, (*shape[:-1], -(-shape[-1] // group_size)), np.uint8),
        draw(codebooks()),
        depth=depth,
        shift=shift,
        group_size=group_size,
        dtype=draw(st.sampled_from(["F32", "F16", "BF16"])),
    )


def raw_arrays(dtype: str) -> SearchStrategy[np.ndarray]:
    """Small arrays of a raw dtype, of any bits that it can hold."""
    stored = RAW_DTYPES[dtype]
    top = 1 if dtype == "BOOL" else 255

    def array(shape: list[int], seed: int) -> np.ndarray:
        count = int(np.prod(shape, dtype=int)) * stored.itemsize
        data = np.random.default_rng(seed).integers(0, top, count, np.uint8, endpoint=True)
        return data.view(stored).reshape(shape)

    return st.builds(array, st.lists(st.integers(0, 5), max_size=3), st.integers(0, 2**32))


def messages(depth: int = 8) -> SearchStrategy[Any]:
    """Values of MessagePack that SPEC 6.2 allows, nested at most *depth* deep."""
    leaves = st.one_of(
        st.sampled_from([0, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**64 - 1]),
        st.integers(0, 2**64 - 1),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
        st.binary(max_size=40),
    )
    if depth == 0:
        return leaves
    inner = st.deferred(lambda: messages(depth - 1))
    keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
    return st.one_of(leaves, st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3))


@st.composite
def directories(draw: DrawFn) -> list[Entry]:
    """Directories of up to six tensors, small and enormous, in the order of their names."""
    axes = st.sampled_from([0, 1, 2, 5, 63, 64, 65, 2**20])
    entries: list[Entry] = []
    for index in range(draw(st.integers(0, 6))):
        if draw(st.booleans()):
            shape = tuple(draw(st.lists(axes, max_size=2)))
            entries.append(RawEntry(f"tensor {index}", draw(st.sampled_from(sorted(RAW_DTYPES))), shape))
            continue
        depth, shift = draw(st.sampled_from(FORMS))
        shape = (draw(axes.filter(bool)), draw(axes.filter(bool)))
        form = Form(
            shape, "F32", depth, shift, draw(GROUP_SIZES), float32(*range(1 << 30, (1 << 30) + 27 * 64, 64))
        )
        entries.append(TritEntry(f"tensor {index}", form, (bytes(32),) * (3 + depth)))
    return entries
