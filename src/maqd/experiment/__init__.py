"""Experiments: what was measured, kept in files that are only ever added to. Needs no PyTorch."""
