"""Balanced-ternary quantised weights: the reference codec of SPEC.md."""

from . import layouts
from .encode import quantize
from .errors import TritError
from .packing import pack, unpack
from .reader import TritFile, load_file, open_file
from .tensor import TritTensor
from .trits import join, split
from .verify import Finding, Report, verify_file
from .writer import TritWriter, save_file, truncate_file

__all__ = [
    "Finding",
    "Report",
    "TritError",
    "TritFile",
    "TritTensor",
    "TritWriter",
    "join",
    "layouts",
    "load_file",
    "open_file",
    "pack",
    "quantize",
    "save_file",
    "split",
    "truncate_file",
    "unpack",
    "verify_file",
]
