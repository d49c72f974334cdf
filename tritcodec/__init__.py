"""Balanced-ternary quantised weights: the reference codec of SPEC.md."""

from . import layouts
from .encode import quantize
from .errors import TritError
from .kernel import KernelReport, check_matmul, probe
from .model.shards import TritModel, open_model
from .model.verify import ModelReport, verify_model
from .packing import pack, unpack
from .product import group_dots, matmul
from .reader import TritFile, load_file, open_file
from .tensor import TritTensor
from .trits import join, split
from .verify import Finding, Report, verify_file
from .version import __version__
from .writer import TritWriter, save_file, truncate_file

__all__ = [
    "Finding",
    "KernelReport",
    "ModelReport",
    "Report",
    "TritError",
    "TritFile",
    "TritModel",
    "TritTensor",
    "TritWriter",
    "__version__",
    "check_matmul",
    "group_dots",
    "join",
    "layouts",
    "load_file",
    "matmul",
    "open_file",
    "open_model",
    "pack",
    "probe",
    "quantize",
    "save_file",
    "split",
    "truncate_file",
    "unpack",
    "verify_file",
    "verify_model",
]
