"""MLflow pyfunc code of a registered preprocessor: raw rows in, preprocessed columns out."""

from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel
from typing_extensions import override


class PreprocessorPyFunc(PythonModel):
    """Applies a fitted TransformManager to rows ordered by `entity_id` and `event_timestamp`."""

    def load_context(self, context: Any) -> None:
        """Check and read the fitted state and its contract."""
        from mlplatform.preprocessing import TransformManager
        from mlplatform.registry.digests import checked_folder
        from mlplatform.registry.forecaster import CONTRACT_FILE, Contract

        folder = checked_folder(context.artifacts, "preprocessor")
        self.contract = Contract.from_json((folder / CONTRACT_FILE).read_text())
        self.manager = TransformManager.load(folder)

    @override
    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        """Return entity, time and the preprocessed columns, one row per input row: what the registered model reads."""
        from mlplatform.registry.tables import prepared_table

        return prepared_table(self.contract, self.manager, model_input)


mlflow.models.set_model(PreprocessorPyFunc())
