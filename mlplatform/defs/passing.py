"""Failures that pass: a source or store that is away now is asked again by the step itself, before its run fails.

Not here: what a process cannot survive (`run_retries` of Dagster), and trainings that fail (`monitoring.retraining`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from dagster import AssetExecutionContext, RetryRequested

RETRIES, PAUSE_S = 3, 5.0


@contextlib.contextmanager
def asked_again(context: AssetExecutionContext) -> Iterator[None]:
    """Have Dagster start the step again, after growing pauses, if a source or store does not answer.

    What another try cannot change fails at once, and so does the last try, with the reason.

    Raises:
        RetryRequested: for Dagster to catch.
    """
    from mlplatform.data import SourceUnavailableError
    from mlplatform.features import StoreUnavailableError

    try:
        yield
    except (SourceUnavailableError, StoreUnavailableError) as error:
        if context.retry_number >= RETRIES:
            raise
        context.log.warning(f"{error}; try {context.retry_number + 2} of {RETRIES + 1} follows")
        raise RetryRequested(RETRIES, PAUSE_S * 2**context.retry_number) from error
