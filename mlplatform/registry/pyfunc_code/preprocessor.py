"""MLflow pyfunc code of a registered preprocessor: raw rows in, preprocessed columns out."""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel


class PreprocessorPyFunc(PythonModel):
    """Applies a fitted TransformManager to rows ordered by `entity_id` and `event_timestamp`."""

    def load_context(self, context: Any) -> None:
        """Read the fitted state and its contract."""
        from mlplatform.preprocessing.manager import TransformManager
        from mlplatform.registry.forecaster import CONTRACT_FILE, Contract

        folder = Path(context.artifacts["preprocessor"])
        self.contract = Contract.from_json((folder / CONTRACT_FILE).read_text())
        self.manager = TransformManager.load(folder)

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        """Return entity, time and the preprocessed columns, one row per input row: what the registered model reads."""
        del context, params
        from mlplatform.config import ENTITY, TIMESTAMP
        from mlplatform.datamodule.panel import Panel
        from mlplatform.registry.tables import with_keys

        rows = with_keys(self.contract, model_input)
        names = [name for name in self.manager.columns if name in rows]
        transformed = self.manager.transform(Panel.from_frame(rows, names))
        columns = {name: transformed.columns[name] for name in names}
        return pd.DataFrame({ENTITY: rows[ENTITY], TIMESTAMP: rows[TIMESTAMP], **columns}, index=rows.index)


mlflow.models.set_model(PreprocessorPyFunc())
