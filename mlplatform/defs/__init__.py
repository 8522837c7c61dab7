"""Everything that imports Dagster: thin wrappers around the domain packages, one module per Dagster concept.

Here: jobs, checks, sensors, schedules, resources, the IO manager, and the assets in `defs.assets`.
Not here: what an asset does; that is a call into a domain package.
"""

import atexit
import gc
import warnings

import lazy_loader
from dagster import BetaWarning

# Known to be beta, and relied on by the design; a line for each of them in every run would bury real warnings.
warnings.filterwarnings("ignore", category=BetaWarning, message=".*`backfill_policy`.*")
warnings.filterwarnings("ignore", category=BetaWarning, message=".*`data_version`.*")
warnings.filterwarnings("ignore", category=BetaWarning, message=".*(`MlFlow`|`_create_mlflow_run_hook`).*")

# A process that ran a job holds a million objects of imported libraries. Python would search them for cycles once more
# before it exits, which takes longer than many a job; the operating system frees them all the same.
atexit.register(gc.freeze)

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
