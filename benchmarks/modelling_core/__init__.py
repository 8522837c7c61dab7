"""The parts of `benchmarks/modelling.py`, each with a function `main`."""
