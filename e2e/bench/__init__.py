"""Benchmarks, one module each: `python -m e2e.bench` runs all, `python -m e2e.bench.NAME` one.

A benchmark prints its figures beside its baseline's from the same run and exits with 0; it says so and exits with 1 if
it misses a goal of the project.
"""
