"""Data sets that come inside scikit-learn, read without a network: `sklearn://diabetes`, `sklearn://breast_cancer`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from typing_extensions import override

from mlplatform.config import DatasetConfig
from mlplatform.data.errors import DataError
from mlplatform.data.sources.base import NoOptions, Source
from mlplatform.plugins import SOURCES
from mlplatform.settings import Settings

if TYPE_CHECKING:
    import pandas as pd


def read_diabetes() -> pd.DataFrame:
    """Return the diabetes study in measured units: ten features and `progression`, 442 rows."""
    from sklearn.datasets import load_diabetes

    frame = cast("pd.DataFrame", load_diabetes(as_frame=True, scaled=False).frame)
    return frame.rename(columns={"target": "progression"})


def read_breast_cancer() -> pd.DataFrame:
    """Return the Wisconsin breast cancer study: thirty features and `diagnosis` (malignant, benign), 569 rows."""
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer(as_frame=True)
    frame = cast("pd.DataFrame", bunch.data).rename(columns=lambda name: str(name).replace(" ", "_"))
    return frame.assign(diagnosis=bunch.target_names[bunch.target.to_numpy()].astype(object))


READERS: dict[str, Callable[[], pd.DataFrame]] = {"diabetes": read_diabetes, "breast_cancer": read_breast_cancer}


@SOURCES.register("sklearn")
class SklearnSource(Source[NoOptions]):
    """A bundled data set; column names are scikit-learn's in snake case."""

    @override
    def read(self, dataset: DatasetConfig, settings: Settings) -> pd.DataFrame:
        """Read the data set that `source.uri` names; see `Source.read`."""
        name = dataset.source.uri.partition("://")[2]
        if name not in READERS:
            known = ", ".join(f"sklearn://{known}" for known in READERS)
            raise DataError(f"dataset {dataset.name!r}: no bundled data set {dataset.source.uri!r}; known: {known}")
        return READERS[name]()
