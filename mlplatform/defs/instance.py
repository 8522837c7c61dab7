"""The Dagster instance of the project, which `dagster.yaml` names; it differs from Dagster's own in one check.

Here: what must be known before an instance opens a database. Not here: what the instance holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dagster import DagsterInstance

from mlplatform.settings import check_dagster_home


class CheckedInstance(DagsterInstance):
    """Dagster's instance, which refuses a home that its addresses would lead away from.

    Dagster opens its databases before it reads any code location; what it asks of a class of one's own comes before.
    """

    @classmethod
    def config_schema(cls) -> Mapping[str, Any]:
        """Return the keys that `dagster.yaml` has beside Dagster's own: none."""
        return {}

    @classmethod
    def config_defaults(cls, base_dir: str) -> Mapping[str, Any]:
        """Return Dagster's own defaults for an instance in a folder.

        Raises:
            AddressError: if Dagster would keep its databases outside of that folder.
        """
        from dagster._core.instance.ref import InstanceRef

        check_dagster_home({"DAGSTER_HOME": base_dir})
        defaults: Mapping[str, Any] = InstanceRef.config_defaults(base_dir)
        return defaults
