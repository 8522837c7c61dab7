"""MLflow pyfunc code of a registered pair as a single model: raw rows in, answers in original units out."""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel
from typing_extensions import override


class ForecasterPyFunc(PythonModel):
    """Applies preprocessor and model, for `mlflow models serve` and batch scoring."""

    def load_context(self, context: Any) -> None:
        """Check and read the pair."""
        from mlplatform.registry.digests import checked_folder
        from mlplatform.registry.forecaster import Forecaster
        from mlplatform.registry.pairs import confirm_inference, read_example

        folders = [checked_folder(context.artifacts, role) for role in ("preprocessor", "model")]
        self.forecaster = Forecaster.load(*folders)
        confirm_inference(self.forecaster, read_example(Path(context.artifacts["example"]))[0])

    @override
    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        """Return answers as a table.

        Forecast: one row per entity and future step, with a column per target. Regression: the target. A calibrated
        model adds the bounds of the prediction interval as `<target>_lower` and `<target>_upper`; those of further
        coverages have them in percent behind, as in `<target>_lower_95`. Classification: a column
        `probability_<class>` per class. See `mlplatform.registry.batch` for what becomes of series that are too short,
        unordered or hardly measured.
        """
        from mlplatform.registry.batch import answer_batch

        return answer_batch(self.forecaster, model_input)


mlflow.models.set_model(ForecasterPyFunc())
