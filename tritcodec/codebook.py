"""SPEC 4: the 27 steps of a tensor, and the codes that select them."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import numpy.typing as npt

from .errors import TritError
from .trits import BASE, largest_level

CODES = 27
CODE_TRITS = 3  # 27 = 3^3: a code is three trits
FREE_BITS = 6  # low significand bits that are zero: 24 - 6 = 18 significant bits
CODEBOOK_BYTES = CODES * 4
LEAST_NORMAL, INFINITY = 0x0080_0000, 0x7F80_0000  # bits of binary32

F32 = npt.NDArray[np.float32]

FLOATS: dict[str, np.dtype] = {  # dtypes of a trit tensor, as safetensors names them
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
OVERFLOW: dict[str, float] = {  # the least magnitude that rounds to infinity
    "F32": 2.0**128,  # products have 24 bits, so what is below 2^128 is at most the largest float32
    "F16": 65520.0,  # the middle between 65504 and 2^16 rounds up, to even
    "BF16": (2 - 2.0**-8) * 2.0**127,
}
# The 27 least steps from 1 on: for a tensor of zeros, and where the steps are not known yet.
UNIT_STEPS: F32 = (1 + np.arange(CODES) * 2.0 ** (FREE_BITS - 23)).astype(np.float32)
UNIT_STEPS.flags.writeable = False


def check_codebook(codebook: npt.ArrayLike, depth: int, shift: int, dtype: str) -> F32:
    """A read-only float32 copy of *codebook*, proved to be one (SPEC 4.1).

    Takes 27 float32 steps and the depth (1..4), shift and dtype ("F32",
    "F16", "BF16") of the tensor they serve. Raises TritError: CB-1 (not 27
    float32), CB-2 (a step not positive and normal), CB-3 (not increasing),
    CB-4 (low six bits), CB-5 (largest value not finite in *dtype*).
    """
    steps = np.array(codebook, order="C")
    # "A codebook MUST hold exactly 27 steps of binary32."
    if steps.shape != (CODES,) or steps.dtype != np.float32:
        message = f"a codebook is {CODES} float32 steps, not {steps.dtype} {steps.shape}"
        raise TritError(message, clause="CB-1")
    bits = steps.view(np.uint32).tolist()  # they order like the floats; for 27, NumPy's calls cost more
    # "Every step MUST be positive, normal and finite."
    wrong = [i for i, b in enumerate(bits) if not LEAST_NORMAL <= b < INFINITY]
    _refuse(steps, wrong, "is not a positive normal number", "CB-2")
    # "The steps MUST be strictly increasing."
    wrong = [i for i in range(1, CODES) if bits[i] <= bits[i - 1]]
    _refuse(steps, wrong, "is not above the step before it", "CB-3")
    # "The low six bits of every step's significand MUST be zero."
    wrong = [i for i, b in enumerate(bits) if b % (1 << FREE_BITS)]
    _refuse(steps, wrong, "has more than 18 significant bits", "CB-4")
    # "The largest value, step[26] * 3^shift * H, rounded to the tensor's dtype, MUST be finite."
    largest = float(steps[-1]) * BASE**shift * largest_level(depth)  # 24 bits: exact in binary64
    if largest >= OVERFLOW[dtype]:
        raise TritError(f"the largest value {largest:.9g} overflows {dtype}", clause="CB-5")
    steps.flags.writeable = False
    return steps


def check_codes(codes: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """*codes* as uint8, or TritError (CODE-1) where one is above 26 (SPEC 4.2)."""
    codes = np.asarray(codes)
    if codes.dtype != np.uint8:
        raise TritError(f"codes must be uint8, not {codes.dtype}")
    # "A code MUST lie in 0..26."
    if codes.size and codes.max() >= CODES:
        at = tuple(int(i) for i in np.argwhere(codes >= CODES)[0])
        raise TritError(f"code {codes[at]} at {at} is above {CODES - 1}", clause="CODE-1")
    return codes


def _refuse(steps: F32, wrong: list[int], message: str, clause: str) -> None:
    if wrong:
        at = wrong[0]
        raise TritError(f"step {at} of the codebook, {steps[at]!s}, {message}", clause=clause)
