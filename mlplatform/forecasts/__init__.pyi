from .picture import plot_sample
from .run import ForecastReport, make_forecasts
from .table import StoredRun, read_forecasts, read_left_out, stored_runs

__all__ = [
    "ForecastReport",
    "StoredRun",
    "make_forecasts",
    "plot_sample",
    "read_forecasts",
    "read_left_out",
    "stored_runs",
]
