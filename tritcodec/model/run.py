"""Quantising a model: every config in one pass over the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ..encode import METHODS, quantize
from ..errors import TritError
from ..header import RawEntry, encode_header
from ..reader import PathLike
from ..tensor import GROUP_SIZE, TritTensor
from ..writer import TritWriter
from .folder import copy_companions, new_folders
from .plan import Planned, config_depth, plan
from .policy import Policy
from .source import ModelSource

TRIT_NAME = "model.trit"
Progress = Callable[[str, int], None]  # a tensor's name, and weights that are done


def plan_model(
    source: ModelSource, configs: list[str], policy: Policy, group_size: int = GROUP_SIZE
) -> dict[str, list[Planned]]:
    """The plan of each config.

    Raises TritError for an unknown config, an impossible policy, and for
    whatever the directory of a file could not hold: names, shapes, dtypes.
    """
    depths = {config: config_depth(config) for config in configs}
    plans = {config: plan(source.tensors, depth, policy, group_size) for config, depth in depths.items()}
    for config, planned in plans.items():
        encode_header([item.entry for item in planned], run_metadata(source, config, METHODS[0], False))
    return plans


def run_metadata(source: ModelSource, config: str, method: str, nested: bool) -> dict[str, str]:
    """The metadata of a file: the source's, and what made it."""
    made = {"tritcodec.config": config, "tritcodec.method": f"{method}, nested" if nested else method}
    return {**source.metadata, **made}


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
    targets = [Path(target, config) for config in plans]
    with new_folders(targets) as folders, contextlib.ExitStack() as files:
        writers = []
        for folder, (config, planned) in zip(folders, plans.items(), strict=True):
            copy_companions(source.folder, folder)
            metadata = run_metadata(source, config, method, nested)
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
    weights = source.read(tensor)  # once, for all configs
    for item, writer in zip(items, writers, strict=True):
        entry = item.entry
        result = weights if isinstance(entry, RawEntry) else encode(weights, entry.form.depth)
        writer.put(tensor.name, result)
