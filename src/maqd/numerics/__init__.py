"""Exact numbers: states, grids, thresholds, packing, bounds, limits. NumPy only."""
