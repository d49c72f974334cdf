"""Balanced-ternary quantised weights: the reference codec of SPEC.md."""

from . import layouts
from .encode import quantize
from .errors import TritError
from .kernel import KernelReport, check_matmul, probe
from .packing import pack, unpack
from .product import group_dots, matmul
from .reader import TritFile, load_file, open_file
from .tensor import TritTensor
from .trits import join, split
from .verify import Finding, Report, verify_file
from .writer import TritWriter, save_file, truncate_file

__all__ = [
    "Finding",
    "KernelReport",
    "Report",
    "TritError",
    "TritFile",
    "TritTensor",
    "TritWriter",
    "check_matmul",
    "group_dots",
    "join",
    "layouts",
    "load_file",
    "matmul",
    "open_file",
    "pack",
    "probe",
    "quantize",
    "save_file",
    "split",
    "truncate_file",
    "unpack",
    "verify_file",
]
