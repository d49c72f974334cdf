"""The version of the package, which is not that of the format (SPEC 12)."""

__version__ = "0.1.0"
