"""Hugging Face model folders in and out. The core of the package knows nothing of this."""
