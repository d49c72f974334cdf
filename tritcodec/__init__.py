"""Balanced-ternary quantised weights: the reference codec of SPEC.md."""

from .encode import quantize
from .errors import TritError
from .model.shards import TritModel, open_model
from .model.verify import ModelReport, verify_model
from .packing import pack, unpack
from .reader import TritFile, load_file, open_file
from .tensor import TritTensor
from .trits import join, split
from .verify import Finding, Report, verify_file
from .writer import TritWriter, save_file, truncate_file

__all__ = [
    "Finding",
    "ModelReport",
    "Report",
    "TritError",
    "TritFile",
    "TritModel",
    "TritTensor",
    "TritWriter",
    "join",
    "load_file",
    "open_file",
    "open_model",
    "pack",
    "quantize",
    "save_file",
    "split",
    "truncate_file",
    "unpack",
    "verify_file",
    "verify_model",
]
