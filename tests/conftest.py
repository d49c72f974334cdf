"""Processes that tests start share compiled modules: hundreds of them would compile the package anew."""

from __future__ import annotations

import os
import shutil
import tempfile

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Where bytecode is not to be written beside sources, it goes to a folder that is removed."""
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", None) and "PYTHONPYCACHEPREFIX" not in os.environ:
        folder = os.environ["PYTHONPYCACHEPREFIX"] = tempfile.mkdtemp()  # processes of xdist inherit it
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
