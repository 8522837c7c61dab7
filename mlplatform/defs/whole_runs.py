"""Jobs that make all folds in one run, and whose page therefore asks for none.

Dagster gives a job the partitions that its assets share. The job's page then has a field for one of them, which is red
while it is empty, and asks whether a run without one is meant, although tags of the job name them all. The job that
Dagster itself has for all assets shows that neither is needed: it has no partitions, and the tags of its runs decide.
Not here: jobs of which a person may well choose the partition, as a day's drift report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dagster import AssetSelection, JobDefinition

# What `define_asset_job` returns has no public name.
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from mlplatform.defs.partitions import all_folds_tags


class _WholeRun(UnresolvedAssetJobDefinition):
    """A job without partitions of its own, whatever its assets have."""

    def resolve(self, *arguments: Any, **options: Any) -> JobDefinition:
        """Return the job as Dagster resolves it, without the partitions."""
        return super().resolve(*arguments, **options)._copy(partitions_def=None)


def all_folds_job(
    name: str, selection: AssetSelection, folds: Sequence[str], *, description: str, tags: Mapping[str, str]
) -> UnresolvedAssetJobDefinition:
    """Return a job over partitioned and plain assets that makes all folds.

    Parameters:
        folds: the partitions, in order.
        tags: of its runs, beside those that name the folds.
    """
    return _WholeRun(name=name, selection=selection, description=description, tags={**all_folds_tags(folds), **tags})
