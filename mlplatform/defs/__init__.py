"""Everything that imports Dagster: thin wrappers around the domain packages, one module per Dagster concept."""

import warnings

from dagster import BetaWarning

# Known to be beta, and relied on by the design; a line for each of them in every run would bury real warnings.
warnings.filterwarnings("ignore", category=BetaWarning, message=".*`backfill_policy`.*")
warnings.filterwarnings("ignore", category=BetaWarning, message=".*(`MlFlow`|`_create_mlflow_run_hook`).*")
