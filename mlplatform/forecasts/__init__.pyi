from .picture import plot_sample
from .run import ForecastReport, make_forecasts
from .table import read_forecasts, read_left_out

__all__ = ["ForecastReport", "make_forecasts", "plot_sample", "read_forecasts", "read_left_out"]
