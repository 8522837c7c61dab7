"""MLflow pyfunc code of a registered preprocessor: raw rows in, preprocessed columns out."""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel


class PreprocessorPyFunc(PythonModel):
    """Applies a fitted TransformManager to rows ordered by `entity_id` and `event_timestamp`."""

    def load_context(self, context: Any) -> None:
        """Read the fitted state."""
        from mlplatform.preprocessing.manager import TransformManager

        self.manager = TransformManager.load(Path(context.artifacts["preprocessor"]))

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        """Return the preprocessed columns, one row per input row."""
        del context, params
        from mlplatform.datamodule.panel import Panel

        names = [name for name in self.manager.columns if name in model_input]
        transformed = self.manager.transform(Panel.from_frame(model_input, names))
        return pd.DataFrame({name: transformed.columns[name] for name in names}, index=model_input.index)


mlflow.models.set_model(PreprocessorPyFunc())
