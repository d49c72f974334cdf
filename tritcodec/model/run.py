"""Quantising a model: every config in one pass over the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ..encode import quantize
from ..errors import TritError
from ..header import RawEntry
from ..reader import PathLike
from ..tensor import GROUP_SIZE, TritTensor
from ..writer import TritWriter
from .folder import copy_companions, new_folder
from .plan import Planned, config_depth, plan
from .policy import Policy
from .source import ModelSource

TRIT_NAME = "model.trit"
Progress = Callable[[str, int], None]  # a tensor's name, and weights that are done


def plan_model(
    source: ModelSource, configs: list[str], policy: Policy, group_size: int = GROUP_SIZE
) -> dict[str, list[Planned]]:
    """The plan of each config. Raises TritError for an unknown one or an impossible policy."""
    return {config: plan(source.tensors, config_depth(config), policy, group_size) for config in configs}


def quantize_model(
    source: ModelSource,
    target: PathLike,
    plans: Mapping[str, list[Planned]],
    *,
    group_size: int = GROUP_SIZE,
    method: str = "optimal",
    nested: bool = False,
    progress: Progress = lambda _name, _weights: None,
) -> None:
    """Write *target*/CONFIG/model.trit for each config of *plans*, with the model's other files.

    Each tensor is read once. The folders appear when all are complete; after
    an exception none is left. Raises TritError for weights that cannot be
    quantised (NaN, infinity) with the tensor's name, OSError for failing I/O.
    """
    with contextlib.ExitStack() as folders, contextlib.ExitStack() as files:
        writers = []
        for config, planned in plans.items():
            folder = folders.enter_context(new_folder(Path(target, config)))
            copy_companions(source.folder, folder)
            metadata = {**source.metadata, "tritcodec.config": config, "tritcodec.method": method}
            entries = [item.entry for item in planned]
            writers.append(files.enter_context(TritWriter(folder / TRIT_NAME, entries, metadata)))
        encode = partial(quantize, group_size=group_size, method=method, nested=nested)
        for items in zip(*plans.values(), strict=True):
            tensor = items[0].tensor
            try:
                _quantize_tensor(source, items, writers, encode)
            except TritError as error:
                raise error.at(f"tensor {tensor.name!a}") from None
            progress(tensor.name, items[0].weights)


def _quantize_tensor(
    source: ModelSource,
    items: tuple[Planned, ...],
    writers: list[TritWriter],
    encode: Callable[[npt.NDArray[Any], int], TritTensor],
) -> None:
    tensor = items[0].tensor
    weights = None
    for item, writer in zip(items, writers, strict=True):
        if isinstance(item.entry, RawEntry):
            writer.write(tensor.name, 0, source.blocks(tensor))
            continue
        if weights is None:  # read once for all configs
            weights = source.read(tensor)
        writer.put(tensor.name, encode(weights, item.entry.form.depth))
