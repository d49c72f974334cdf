"""Balanced-ternary quantised weights: the reference codec of SPEC.md."""
