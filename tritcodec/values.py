"""SPEC 16.5: what a codebook decodes to, as tables: from the bits of a value to its codes and level."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .codebook import CODES, FLOATS
from .tensor import U8
from .trits import largest_level

U32 = npt.NDArray[np.uint32]
Bits = npt.NDArray[np.unsignedinteger]

DENSE_BITS = 16  # values of so many bits have a table of all there are
BITS: dict[str, np.dtype[np.unsignedinteger]] = {  # the unsigned integers as wide as a dtype
    name: np.dtype(f"u{dtype.itemsize}") for name, dtype in FLOATS.items()
}
SIGN: dict[str, int] = {name: 1 << (8 * dtype.itemsize - 1) for name, dtype in BITS.items()}
EVERY_CODE = (1 << CODES) - 1


class Values:
    """The values that 27 *steps* decode to in *dtype*, at *depth* and shift 0.

    They are made as the decoder makes them (TEN-6, TEN-8), so that what is found here decodes to
    the same bits, zeros aside: whatever its sign, a zero has level 0.
    """

    def __init__(self, steps: npt.NDArray[np.float32], depth: int, dtype: str) -> None:
        H = largest_level(depth)
        self.dtype, self._sign = BITS[dtype], SIGN[dtype]
        levels = np.arange(H + 1, dtype=np.float32)
        products = (steps[:, None] * levels).astype(FLOATS[dtype]).view(self.dtype)
        self._magnitudes, place = np.unique(products, return_inverse=True)
        place, V = place.reshape(products.shape), len(self._magnitudes)
        self._unknown = 2 * V  # the index of what no step gives; values are below V, their negatives above
        masks, offsets = np.zeros(V, np.uint32), np.full((CODES, V), H, np.uint8)
        for code in range(CODES):
            masks[place[code]] |= np.uint32(1 << code)
            offsets[code, place[code, ::-1]] = np.arange(
                2 * H, H - 1, -1
            )  # of equals the last stays, the lowest
        self._masks = np.concatenate([masks, masks, np.zeros(1, np.uint32)])
        self._offsets = np.concatenate([offsets, 2 * H - offsets, np.full((CODES, 1), H, np.uint8)], axis=1)
        every = np.arange(1 << DENSE_BITS, dtype=self.dtype)
        self._dense = self._search(every) if 8 * self.dtype.itemsize == DENSE_BITS else None

    def masks(self, bits: Bits) -> U32:
        """For each value, given by its bits, the codes that have it: bit c is set for code c."""
        return self._masks.take(self._index(bits))

    def encode(self, bits: Bits, group_size: int) -> tuple[U8, U8]:
        """Codes (n, G) and levels plus H (n, K) of rows (n, K), each of whose groups has a code in common.

        Of several codes a group takes the lowest, and of several levels the nearest to 0.
        """
        index = self._index(bits)
        common = in_common(self._masks.take(index), group_size)
        lowest = common & (~common + np.uint32(1))  # a power of two
        codes = np.frexp(lowest.astype(np.float64))[1] - 1
        index += np.repeat(codes * self._offsets.shape[1], group_size, axis=1)[:, : bits.shape[1]]
        return codes.astype(np.uint8), self._offsets.ravel().take(index)

    def _index(self, bits: Bits) -> npt.NDArray[np.int32]:
        return self._search(bits) if self._dense is None else self._dense.take(bits)

    def _search(self, bits: Bits) -> npt.NDArray[np.int32]:
        magnitudes = bits & self.dtype.type(self._sign - 1)
        index: npt.NDArray[np.int32] = np.searchsorted(self._magnitudes, magnitudes).astype(np.int32)
        known = self._magnitudes.take(index, mode="clip") == magnitudes
        index[bits >= self._sign] += len(self._magnitudes)
        index[~known] = self._unknown
        return index


def bits_of(rows: np.ndarray, dtype: str) -> Bits:
    """The bits of values of *dtype*, in whatever order of bytes."""
    return np.ascontiguousarray(rows, FLOATS[dtype]).view(BITS[dtype])


def in_common(masks: U32, size: int) -> U32:
    """Of masks (n, K), what each *size* neighbours in a row have in common: (n, ceil(K / size))."""
    return np.bitwise_and.reduceat(masks, np.arange(0, masks.shape[1], size), axis=1)
