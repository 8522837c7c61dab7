"""Parts of `benchmarks/forecasting.py`."""
