"""The IO manager: values of one or several partitions, in Parquet or in their own file format.

A value is a DataFrame, stored as Parquet, or an object with `save(folder)` and a classmethod `load(folder)`. An asset
materialised for several partitions in one run returns a dict from partition key to value; an input that spans several
partitions receives such a dict.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, Self, get_args, get_origin, runtime_checkable

from dagster import AssetKey, ConfigurableIOManager, InputContext, MetadataValue, OutputContext
from pydantic import Field

from mlplatform.storage import atomic_folder

TABLE_FILE = "table.parquet"


class ArtifactError(RuntimeError):
    """A stored asset that cannot be written or read. The message names asset, partition and path."""


@runtime_checkable
class Storable(Protocol):
    """A value that stores itself in a folder."""

    def save(self, folder: Path) -> None:
        """Write into an existing, empty folder."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""


@runtime_checkable
class ValueReader(Protocol):
    """What this code location asks of an IO manager beside Dagster's own interface.

    A check reads the folds that are there, which Dagster's inputs, always all or one, cannot say.
    """

    def has(self, key: AssetKey, partition: str | None) -> bool:
        """Return whether a value is stored."""

    def read(self, key: AssetKey, partition: str | None, kind: Any) -> Any:
        """Return a stored value of type `kind`."""


def as_reader(io_manager: object) -> ValueReader:
    """Return an IO manager as what checks read from.

    Raises:
        TypeError: if it offers no such thing.
    """
    if isinstance(io_manager, ValueReader):
        return io_manager
    missing = [name for name in ("has", "read") if not hasattr(io_manager, name)]
    raise TypeError(
        f"the resource io_manager is a {type(io_manager).__name__}, which has no {' and no '.join(missing)}; checks "
        "read stored values by has(key, partition) and read(key, partition, kind), as in "
        "mlplatform.defs.io_managers.ValueReader: add them to it"
    )


class ArtifactStore:
    """Asset values on disk: `<root>/<asset key>/<partition>`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, key: AssetKey, partition: str | None) -> Path:
        """Return where a value is kept."""
        return self.root.joinpath(*key.path, partition or "value")

    def has(self, key: AssetKey, partition: str | None) -> bool:
        """Return whether a value is stored."""
        return self.folder(key, partition).exists()

    def write(self, key: AssetKey, partition: str | None, value: Any) -> dict[str, Any]:
        """Store a value atomically and return metadata about it.

        Raises:
            ArtifactError: if the value has a type that cannot be stored.
        """
        import pandas as pd

        target = self.folder(key, partition)
        if not isinstance(value, pd.DataFrame | Storable):
            raise ArtifactError(
                f"{_name(key, partition)} returned {type(value).__name__}, expected a DataFrame or an object "
                f"with save and load; nothing was written to {target}"
            )
        with atomic_folder(target) as folder:
            if isinstance(value, pd.DataFrame):
                value.to_parquet(folder / TABLE_FILE, index=False)
            else:
                value.save(folder)
        metadata: dict[str, Any] = {"path": MetadataValue.path(target)}
        if isinstance(value, pd.DataFrame):
            schema = "\n".join(f"{name}: {dtype}" for name, dtype in value.dtypes.items())
            metadata |= {"dagster/row_count": len(value), "schema": MetadataValue.text(schema)}
        return metadata

    def read(self, key: AssetKey, partition: str | None, kind: Any) -> Any:
        """Return a stored value of type `kind`.

        Raises:
            ArtifactError: if it was never stored, or cannot be read as `kind`.
        """
        import pandas as pd

        folder = self.folder(key, partition)
        if not self.has(key, partition):
            raise ArtifactError(
                f"{_name(key, partition)} has no stored value at {folder}; materialise it before what reads it"
            )
        try:
            return pd.read_parquet(folder / TABLE_FILE) if kind is pd.DataFrame else kind.load(folder)
        except Exception as error:
            raise ArtifactError(
                f"{_name(key, partition)} at {folder} cannot be read as {getattr(kind, '__name__', kind)}: {error}; "
                "materialise it again"
            ) from error


class ArtifactIOManager(ConfigurableIOManager):
    """Dagster's view of an `ArtifactStore`."""

    root: str = Field(description="Folder of all stored values.")

    @property
    def store(self) -> ArtifactStore:
        """The store behind this IO manager."""
        return ArtifactStore(Path(self.root))

    def has(self, key: AssetKey, partition: str | None) -> bool:
        """Return whether a value is stored."""
        return self.store.has(key, partition)

    def read(self, key: AssetKey, partition: str | None, kind: Any) -> Any:
        """Return a stored value, as `ArtifactStore.read` does."""
        return self.store.read(key, partition, kind)

    def handle_output(self, context: OutputContext, obj: Any) -> None:
        """Store the value of an asset, or a dict of values for several partitions."""
        if not context.has_asset_partitions:
            context.add_output_metadata(self.store.write(context.asset_key, None, obj))
            return
        partitions = sorted(context.asset_partition_keys)
        values = obj if isinstance(obj, dict) else dict.fromkeys(partitions, obj)
        if set(values) != set(partitions) or (len(partitions) > 1 and not isinstance(obj, dict)):
            found = ", ".join(map(str, values)) if isinstance(obj, dict) else type(obj).__name__
            raise ArtifactError(
                f"{context.asset_key.to_user_string()} was run for the partitions {', '.join(partitions)} and must "
                f"return a dict with exactly these keys, but returned {found}; nothing was written"
            )
        written = {key: self.store.write(context.asset_key, key, value) for key, value in values.items()}
        rows = {
            key: metadata["dagster/row_count"] for key, metadata in written.items() if "dagster/row_count" in metadata
        }
        metadata: dict[str, Any] = {
            "path": MetadataValue.path(self.store.folder(context.asset_key, partitions[0]).parent)
        }
        if rows:
            metadata |= {"dagster/row_count": sum(rows.values()), "rows_by_partition": MetadataValue.json(rows)}
        context.add_output_metadata(metadata)

    def load_input(self, context: InputContext) -> Any:
        """Return the stored value, or a dict by partition where the input's type is one."""
        kind = context.dagster_type.typing_type
        if not context.has_asset_partitions:
            return self.store.read(context.asset_key, None, kind)
        partitions = sorted(context.asset_partition_keys)
        if get_origin(kind) is dict:
            value_kind = get_args(kind)[1]
            return {key: self.store.read(context.asset_key, key, value_kind) for key in partitions}
        if len(partitions) != 1:
            raise ArtifactError(
                f"{context.asset_key.to_user_string()} is read for {len(partitions)} partitions "
                f"({', '.join(partitions)}), so the input must be annotated as a dict "
                f"of {getattr(kind, '__name__', kind)}"
            )
        return self.store.read(context.asset_key, partitions[0], kind)


def _name(key: AssetKey, partition: str | None) -> str:
    return key.to_user_string() + (f" partition {partition}" if partition else "")
