"""Where it is known from what predictions should have been."""

from __future__ import annotations

from mlplatform.config.base import Frozen


class TruthConfig(Frozen):
    """What happened, for the table of forecast errors.

    Of forecasts it is in the dataset. Labels of rows of tables arrive by `POST /feedback`; with `labels_from_dataset`
    also as rows of the dataset, by entity and time: for datasets with an entity column, whose entities requests name.
    """

    labels_from_dataset: bool = False
