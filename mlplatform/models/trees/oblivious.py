"""Several fitted models of CatBoost as arrays, which NumPy walks for a few rows at once.

CatBoost's own `sum_models` adds models up into one output, and a call of each model costs far more than the walk of a
row. All splits of a level of an oblivious tree are the same, so the leaf of a row is a number with one bit per level:
one comparison and one look-up answer all trees of all models. The leaves of a model are added tree by tree, in double
precision, as CatBoost does; so the bits are the same.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlplatform.datamodule import Float32
from mlplatform.models.trees.fitted import CannotMergeError
from mlplatform.models.trees.probes import probe_rows

if TYPE_CHECKING:
    import catboost

Float64 = npt.NDArray[np.float64]
Document = dict[str, Any]


@dataclass(frozen=True)
class ObliviousTrees:
    """The trees of several models with as many outputs each; models with fewer trees are filled up with zeros.

    Attributes:
        features, borders: what every level compares, of shape (models, trees, levels); a row goes to the upper half of
            the leaves where its feature is above the border. Levels that a tree lacks have the border infinity.
        first_leaves: position of the first leaf of every tree in `leaves`, of shape (models, trees).
        leaves: answers of all leaves, of shape (leaves, outputs).
        scales, biases: of shape (models, 1) and (models, outputs): what the sum is multiplied by, and then added to.
    """

    features: npt.NDArray[np.int64]
    borders: Float32
    first_leaves: npt.NDArray[np.int64]
    leaves: Float64
    scales: Float64
    biases: Float64

    @classmethod
    def of(cls, models: Sequence[catboost.CatBoost]) -> ObliviousTrees:
        """Copy fitted models. Their answers were compared, bit for bit, on rows at and beside the borders.

        Raises:
            CannotMergeError: if they have something beside splits of numbers, or answer otherwise here.
        """
        import catboost

        try:
            merged = cls._of([_document(model) for model in models])
        except CannotMergeError:
            raise
        except (LookupError, TypeError, ValueError, catboost.CatBoostError) as error:
            found = f"{type(error).__name__}: {error}"
            raise CannotMergeError(f"CatBoost {catboost.__version__} stores models in another form: {found}") from error
        width = max(len(model.feature_names_) for model in models)
        finite = np.isfinite(merged.borders)
        probes = probe_rows(width, merged.features[finite], merged.borders[finite])
        for rows in (probes, probes[:1]):
            if merged.answers(rows).tobytes() != raw_answers(models, rows).tobytes():
                raise CannotMergeError(f"as arrays they answer {len(rows)} rows with other bits")
        return merged

    @classmethod
    def _of(cls, documents: Sequence[Document]) -> ObliviousTrees:
        grown = [document["oblivious_trees"] for document in documents]
        outputs = {len(document["scale_and_bias"][1]) for document in documents}
        if len(outputs) > 1:
            raise CannotMergeError(f"the models have different numbers of outputs: {sorted(outputs)}")
        (width,) = outputs
        shape = len(grown), max(map(len, grown))
        levels = max(len(tree["splits"] or ()) for trees in grown for tree in trees)
        features = np.zeros((*shape, levels), dtype=np.int64)
        borders = np.full((*shape, levels), np.inf, dtype=np.float32)
        # The first leaf stands for trees that a model lacks.
        leaves, first_leaves, count = [np.zeros((1, width))], np.zeros(shape, dtype=np.int64), 1
        for model, trees in enumerate(grown):
            for place, tree in enumerate(trees):
                for level, split in enumerate(tree["splits"] or ()):
                    if split["split_type"] != "FloatFeature":
                        raise CannotMergeError(f"a tree has a split of the type {split['split_type']!r}")
                    features[model, place, level] = split["float_feature_index"]
                    borders[model, place, level] = split["border"]
                own = np.asarray(tree["leaf_values"], dtype=np.float64).reshape(-1, width)
                first_leaves[model, place] = count
                leaves.append(own)
                count += len(own)
        scales = np.array([[document["scale_and_bias"][0]] for document in documents], dtype=np.float64)
        biases = np.array([document["scale_and_bias"][1] for document in documents], dtype=np.float64)
        return cls(features, borders, first_leaves, np.concatenate(leaves), scales, biases)

    def answers(self, features: Float32) -> Float64:
        """Return the raw answers of all models, of shape (rows, models, outputs)."""
        # A missing value is above no border.
        is_above = features[:, self.features] > self.borders
        reached = is_above @ (1 << np.arange(self.features.shape[-1])) + self.first_leaves
        # Tree by tree: a sum along an axis would add in an order of its own.
        sums: Float64 = np.add.accumulate(self.leaves[reached], axis=2)[:, :, -1]
        return sums * self.scales + self.biases


def raw_answers(models: Sequence[catboost.CatBoost], features: Float32) -> Float64:
    """Return the raw answers of models that are asked one by one, of shape (rows, models, outputs)."""
    answers = [model.predict(features, prediction_type="RawFormulaVal", thread_count=1) for model in models]
    return np.stack([answer.reshape(len(features), -1) for answer in answers], axis=1)


def _document(model: catboost.CatBoost) -> Document:
    """Return a model in CatBoost's JSON form.

    Raises:
        CannotMergeError: if it is more than trees over numbers.
    """
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "model.json")
        model.save_model(str(path), format="json")
        document: Document = json.loads(path.read_text())
    if "oblivious_trees" not in document:
        raise CannotMergeError("the trees are not oblivious")
    information = document["features_info"]
    if others := sorted(set(information) - {"float_features"}):
        raise CannotMergeError(f"the model reads more than numbers: {', '.join(others)}")
    if any(feature["nan_value_treatment"] == "AsTrue" for feature in information["float_features"]):
        raise CannotMergeError("missing values are above every border of a feature")
    return document
