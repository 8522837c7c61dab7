"""Opening the source that a dataset names."""

from __future__ import annotations

from typing import Any, cast

from mlplatform.config import DatasetConfig, check_source, source_scheme
from mlplatform.data.sources.base import Source
from mlplatform.data.sources.renaming import renaming
from mlplatform.plugins import SOURCES


def open_source(dataset: DatasetConfig) -> Source[Any]:
    """Return the source that the dataset's URI names, with its validated options.

    Raises:
        ConfigError: if no source reads the URI, or the source refuses `source.options`.
    """
    return renaming(_plugin(dataset), dataset)


def source_identity(dataset: DatasetConfig) -> dict[str, Any]:
    """Return what decides which rows the dataset's source delivers: URIs, names and options that are not operational.

    Raises:
        ConfigError: if no source reads the dataset's URI, or the source refuses `source.options`.
    """
    operational = _plugin(dataset).operational
    options = {name: value for name, value in dataset.source.options.items() if name not in operational}
    # What came later stands there only if it says something, so that tables of before agree.
    later = dataset.source.model_dump(mode="json", include={"more", "rename"})
    return {"uri": dataset.source.uri, "options": options, **later}


def _plugin(dataset: DatasetConfig) -> Source[Any]:
    check_source(dataset)
    plugin = SOURCES.get(source_scheme(dataset.source.uri))
    return cast("Source[Any]", plugin(plugin.Params.model_validate(dataset.source.options)))
