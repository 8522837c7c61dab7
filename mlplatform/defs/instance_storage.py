"""Where a Dagster instance keeps runs, events and ticks; `dagster.yaml` names the class.

Here: the check of the folder, which must come before Dagster's first database. Not here: what the databases hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from typing_extensions import override

from mlplatform.settings import check_dagster_home

if TYPE_CHECKING:
    from dagster._serdes import ConfigurableClassData


class CheckedSqliteStorage(DagsterSqliteStorage):
    """Dagster's own SQLite storage, which refuses a folder that its addresses would lead away from.

    Dagster opens its storage before it reads any code location: this is the only place of the platform that comes
    before a database of another name is made.
    """

    @classmethod
    @override
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        """Return the storage in the folder `base_dir`.

        Raises:
            AddressError: if Dagster would keep its databases outside of that folder.
        """
        check_dagster_home({"DAGSTER_HOME": config_value["base_dir"]})
        return cls.from_local(inst_data=inst_data, **config_value)
