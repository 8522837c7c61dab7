"""MLflow signatures of the three registered models: which columns a user sends, and what comes back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlplatform.config import ENTITY, TIMESTAMP
from mlplatform.registry.batch import FALLBACK, OBSERVED
from mlplatform.registry.forecaster import Contract
from mlplatform.registry.tables import answer_columns

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import ModelSignature


def signatures(
    contract: Contract, example: pd.DataFrame, prepared: pd.DataFrame, coverages: Sequence[float]
) -> dict[str, ModelSignature]:
    """Return the signature of each role.

    Parameters:
        example: raw rows; they tell numbers from categories, and how entities are named.
        prepared: what the preprocessor makes of them.
        coverages: of the prediction intervals, the main one first.
    """
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types.schema import DataType, Schema

    def raw_type(name: str) -> DataType:
        # Double, because MLflow refuses to narrow what a user sends; the platform computes in float32.
        return DataType.double if pd.api.types.is_numeric_dtype(example[name]) else DataType.string

    keys = _key_columns(contract, example)
    raw = Schema([*keys, *(_column(name, raw_type(name)) for name in contract.columns)])
    answers = [*keys, *(_column(name, DataType.float) for name in prepared.columns if name not in (ENTITY, TIMESTAMP))]
    needed = Schema([*keys, *(_column(name, DataType.float) for name in contract.columns)])
    return {
        "preprocessor": ModelSignature(inputs=raw, outputs=Schema(answers)),
        "model": ModelSignature(inputs=needed, outputs=_array(contract)),
        "forecaster": ModelSignature(inputs=raw, outputs=_answers(contract, keys, coverages)),
    }


def _key_columns(contract: Contract, example: pd.DataFrame) -> list[Any]:
    """Return the columns that say whose row it is and when; tabular rows may come without them."""
    import pandas as pd
    from mlflow.types.schema import AnyType, DataType

    is_number = ENTITY not in example or pd.api.types.is_integer_dtype(example[ENTITY])
    required = contract.task == "forecast"
    return [
        _column(ENTITY, DataType.long if is_number else DataType.string, required=required),
        # MLflow's own datetime type refuses time zones.
        _column(TIMESTAMP, AnyType(), required=required),  # type: ignore[no-untyped-call]
    ]


def _answers(contract: Contract, keys: list[Any], coverages: Sequence[float]) -> Any:
    from mlflow.types.schema import DataType, Schema

    columns = [_column(name, DataType.float) for name in answer_columns(contract, coverages)]
    if contract.task != "forecast":
        return Schema(columns)
    return Schema([*keys, *columns, _column(OBSERVED, DataType.double), _column(FALLBACK, DataType.boolean)])


def _array(contract: Contract) -> Any:
    import numpy as np
    from mlflow.types.schema import Schema, TensorSpec

    shapes: dict[str, tuple[int, ...]] = {
        "forecast": (-1, contract.horizon, len(contract.targets)),
        "regression": (-1,),
        "classification": (-1, len(contract.classes)),
    }
    return Schema([TensorSpec(np.dtype(np.float32), shapes[contract.task])])


def _column(name: str, kind: Any, *, required: bool = True) -> Any:
    from mlflow.types.schema import ColSpec

    return ColSpec(kind, name, required=required)
