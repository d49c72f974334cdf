"""Which tensors of a model are quantised, and why the others are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ..errors import TritError
from ..header import RAW_DTYPES
from .source import SourceTensor

# The layer policy of the published recipe: linear layers are quantised, and these are not.
# Patterns of the names that model families give them, matched without regard to case.
KEPT = {
    "*embed*": "embedding",
    "*_emb.*": "embedding",
    "*wte.*": "embedding",
    "*wpe.*": "embedding",
    "shared.weight": "embedding",
    "model.shared.weight": "embedding",
    "*relative_attention_bias*": "embedding",
    "*lm_head*": "output head",
    "output.weight": "output head",
    "model.output.weight": "output head",
    "*.output_layer.weight": "output head",
    "*predictions.decoder.*": "output head",
    "*norm*": "normalisation",
    "*scale*": "scales",
    "*.a_log": "state matrix",
    "*.bias": "bias",
    "*_bias": "bias",  # of experts in one tensor: a matrix
}
EXPERTS = "*experts*"  # of such names, tensors of rank 3 are matrices of linear layers, one beside the other
SOURCES = {"F32": "F32", "F16": "F16", "BF16": "BF16", "F64": "F32"}  # source dtype: dtype of the trit tensor


@dataclass(frozen=True)
class Policy:
    """Decides for each tensor; *keep* wins over *quantize*, and both over the recipe.

    Both hold shell patterns (`*`, `?`, `[...]`) that a whole name has to match. Without
    *recipe*, names decide nothing else: all matrices are taken.
    """

    keep: Sequence[str] = ()
    quantize: Sequence[str] = ()
    depths: Sequence[tuple[str, int]] = ()  # pattern, depth: whatever the config says; the first that matches
    recipe: bool = True

    def reason_to_keep(self, tensor: SourceTensor) -> str | None:
        """Why *tensor* is kept raw, in a word or two; None where it is quantised.

        Raises TritError where `quantize` asks for a tensor that cannot be.
        """
        for pattern in self.keep:
            if fnmatchcase(tensor.name, pattern):
                return f"--keep {pattern}"
        obstacle = _obstacle(tensor)
        for pattern in self.quantize:
            if fnmatchcase(tensor.name, pattern):
                if obstacle:
                    message = f"--quantize {pattern} asks for it, but it cannot be quantised: {obstacle}"
                    raise TritError(message, where=f"tensor {tensor.name!a}")
                return None
        return obstacle or (_recipe(tensor) if self.recipe else _rank(tensor))

    def fixed_depth(self, tensor: SourceTensor) -> int | None:
        """The depth that `depths` gives *tensor*; None where the config decides."""
        return next((depth for pattern, depth in self.depths if fnmatchcase(tensor.name, pattern)), None)

    def check(self, tensors: Sequence[SourceTensor]) -> None:
        """Raise TritError where a pattern matches no tensor, or gives a depth to none: it is mistyped."""
        for pattern in [*self.keep, *self.quantize, *(pattern for pattern, _ in self.depths)]:
            if not any(fnmatchcase(tensor.name, pattern) for tensor in tensors):
                raise TritError(f"the pattern {pattern!a} matches no tensor")
        for pattern, depth in self.depths:
            found = [tensor for tensor in tensors if fnmatchcase(tensor.name, pattern)]
            if all(self.reason_to_keep(tensor) for tensor in found):
                reason = self.reason_to_keep(found[0])
                message = f"--depth {pattern}={depth} is for what is kept raw ({reason}); see --quantize"
                raise TritError(message, where=f"tensor {found[0].name!a}")


def _obstacle(tensor: SourceTensor) -> str | None:
    if tensor.dtype not in SOURCES:
        kind = "integer" if RAW_DTYPES[tensor.dtype].kind in "iu" else "dtype"
        return f"{kind} {tensor.dtype}"
    if not tensor.shape or 0 in tensor.shape:
        return "empty" if tensor.shape else "scalar"
    return None


def _rank(tensor: SourceTensor) -> str | None:
    return "rank 1" if len(tensor.shape) == 1 else None


def _recipe(tensor: SourceTensor) -> str | None:
    experts = len(tensor.shape) == 3 and fnmatchcase(tensor.name.lower(), EXPERTS)
    if len(tensor.shape) != 2 and not experts:
        return f"rank {len(tensor.shape)}"
    for pattern, reason in KEPT.items():
        if fnmatchcase(tensor.name.lower(), pattern):
            return reason
    return None
