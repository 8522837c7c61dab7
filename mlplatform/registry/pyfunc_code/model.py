"""MLflow pyfunc code of a registered model: preprocessed rows in, answers in preprocessed space out."""

from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel
from typing_extensions import override


class ModelPyFunc(PythonModel):
    """Applies a fitted model to the output of its partner, the registered preprocessor."""

    def load_context(self, context: Any) -> None:
        """Check and read the fitted model and its contract."""
        from mlplatform.models import load_model
        from mlplatform.registry.digests import checked_folder
        from mlplatform.registry.forecaster import CONTRACT_FILE, Contract

        folder = checked_folder(context.artifacts, "model")
        self.contract = Contract.from_json((folder / CONTRACT_FILE).read_text())
        self.model = load_model(folder)

    @override
    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        """Return the answer for the last row of every entity, in order of appearance, or for every row of tabular data.

        Raises:
            ValueError: if a series is too short; an array has no place to say that one was left out.
        """
        from mlplatform.datamodule import last_origins, tabular_samples, window_samples
        from mlplatform.registry.tables import input_panel, require_rows

        contract = self.contract
        panel = input_panel(contract, model_input)
        if contract.task != "forecast":
            return self.model.predict(tabular_samples(panel, contract.columns, None, len(contract.classes)))
        require_rows(panel, contract.input_rows - contract.context + contract.future_rows)
        origins = last_origins(panel) - contract.future_rows
        return self.model.predict(window_samples(panel, self.model.spec, origins))


mlflow.models.set_model(ModelPyFunc())
