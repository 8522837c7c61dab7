"""Integer codes for categories."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from typing_extensions import override

from mlplatform.datamodule import Int64
from mlplatform.plugins import TRANSFORMS
from mlplatform.preprocessing.base import Column, Transform


@TRANSFORMS.register("label_encoding")
class LabelEncoding(Transform):
    """Code a category as its position among the sorted training categories; unseen or missing ones become -1."""

    accepts = "category"

    def fit(self, column: Column, name: str) -> LabelEncoding:
        """Learn the categories."""
        self.classes_ = tuple(sorted({str(value) for value in column if value is not None}))
        if not self.classes_:
            raise ValueError(f"column {name!r} has no observed category in the training rows, so it cannot be encoded")
        return self

    @override
    def apply(self, column: Column, offsets: Int64) -> Column:
        """Return the codes as float32."""
        codes = {label: code for code, label in enumerate(self.classes_)}
        values = column.tolist()
        distinct = set(values)
        # A look-up per distinct value; of other types some are equal although their texts differ, as 1 and True.
        if set(map(type, distinct)) <= {str, type(None)}:
            known = {value: codes.get(value, -1) for value in distinct}
            return np.fromiter(map(known.__getitem__, values), dtype=np.float32, count=len(values))
        return np.fromiter(
            (-1 if value is None else codes.get(str(value), -1) for value in column),
            dtype=np.float32,
            count=len(column),
        )

    def state(self) -> dict[str, Any]:
        """Return the categories in code order."""
        return {"classes": list(self.classes_)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Set the categories."""
        self.classes_ = tuple(state["classes"])
