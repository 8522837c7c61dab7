"""The parts of `benchmarks/features.py`, each with a function `run`."""
