from .answering import Answering, chunks
from .picture import plot_sample
from .rows import forecast_schema, forecast_table, left_out_table
from .run import ForecastReport, make_forecasts
from .scenario import read_scenario
from .table import StoredRun, read_forecasts, read_left_out, stored_runs

__all__ = [
    "Answering",
    "ForecastReport",
    "StoredRun",
    "chunks",
    "forecast_schema",
    "forecast_table",
    "left_out_table",
    "make_forecasts",
    "plot_sample",
    "read_forecasts",
    "read_left_out",
    "read_scenario",
    "stored_runs",
]
