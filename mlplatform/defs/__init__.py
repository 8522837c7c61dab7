"""Everything that imports Dagster: thin wrappers around the domain packages, one module per Dagster concept."""

import warnings

from dagster import BetaWarning

# `backfill_policy` is beta, and asked for by the design; one line per asset at every import would bury real warnings.
warnings.filterwarnings("ignore", category=BetaWarning, message=".*`backfill_policy`.*")
