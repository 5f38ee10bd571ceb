"""Benchmarks: fvlrp beside the published packages and the best NumPy form, in alternating pairs in one process."""
