"""mlplatform: raw data to a promoted, served and monitored model, as Dagster assets.

Importing the package switches off the usage reporting of the libraries it is built on, before any of them is
imported. An operator who wants it can set the variable to another value first.
"""

import os

for _variable, _value in {
    "DO_NOT_TRACK": "1",
    "FEAST_USAGE": "False",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "DAGSTER_DISABLE_TELEMETRY": "yes",
    "DVC_NO_ANALYTICS": "1",
    # Alembic and Git chatter at the first use of MLflow is noise in every run log.
    "GIT_PYTHON_REFRESH": "quiet",
}.items():
    os.environ.setdefault(_variable, _value)
