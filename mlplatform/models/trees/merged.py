"""Several fitted boosters of XGBoost as one that answers for all of them.

A call of XGBoost costs far more than the walk of one row through its trees, and a direct forecast has a booster per
target and step. The merged booster holds the trees of all of them, each adding to the output of its own booster, in
the order in which it did there; so every sum has the same terms in the same order, and the same bits. It is made when
a model is loaded and never stored.

The form is that of XGBoost's JSON model: `tree_info` names the output of a tree, `num_target` says how many there are,
and `base_score` holds one number for each. Whatever is not known to add up that way is refused: other boosters than
`gbtree` (DART weighs its trees), objectives with a link function, leaves with several values, splits on categories,
and boosters of different features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from mlplatform.datamodule import Float32
from mlplatform.models.trees.fitted import CannotMergeError
from mlplatform.models.trees.probes import probe_rows
from mlplatform.models.trees.walk import SummedTrees

if TYPE_CHECKING:
    import xgboost

# Objectives whose answer is the sum of leaves and base score itself.
WITHOUT_LINK = {"reg:squarederror", "reg:quantileerror", "reg:absoluteerror", "reg:pseudohubererror"}
MERGED_OBJECTIVE = {"name": "reg:squarederror", "reg_loss_param": {"scale_pos_weight": "1"}}

Document = dict[str, Any]


@dataclass(frozen=True)
class MergedBoosters:
    """Boosters in one, and their trees as arrays for a single row."""

    booster: xgboost.Booster
    trees: SummedTrees

    def answers(self, features: Float32) -> Float32:
        """Return the answers of all boosters side by side, of shape (rows, outputs of all boosters)."""
        if len(features) == 1:
            return self.trees.answers(features[0])[None]
        return answers_of([self.booster], features)


def merge_boosters(boosters: Sequence[xgboost.Booster]) -> MergedBoosters:
    """Return one booster with the outputs of all, in their order, on one thread.

    Its answers were compared with those of the boosters, bit for bit, on rows at and beside the thresholds of their own
    splits and with missing values, together and each row alone.

    Raises:
        CannotMergeError: if they have something that cannot be merged, or the merged booster answers otherwise.
    """
    import xgboost

    try:
        document = _merged([orjson.loads(booster.save_raw("json")) for booster in boosters])
        booster = xgboost.Booster()
        booster.load_model(bytearray(orjson.dumps(document)))
        trees = _arrays(document)
    except CannotMergeError:
        raise
    except (LookupError, TypeError, ValueError, xgboost.core.XGBoostError) as error:
        # XGBoost's own messages go on with a stack trace.
        problem = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise CannotMergeError(f"XGBoost {xgboost.__version__} stores boosters in another form: {problem}") from error
    booster.set_param({"nthread": 1})
    merged = MergedBoosters(booster, trees)
    probes = _probes(document)
    expected = answers_of(boosters, probes)
    alone = np.concatenate([merged.answers(probes[number : number + 1]) for number in range(len(probes))])
    for way, found in (("together", merged.answers(probes)), ("alone", alone)):
        if differing := differing_values(found, expected):
            raise CannotMergeError(f"merged they answer {differing} values of {len(probes)} rows {way} with other bits")
    return merged


def answers_of(boosters: Sequence[xgboost.Booster], features: Float32) -> Float32:
    """Return the answers of boosters side by side, of shape (rows, outputs of all boosters)."""
    rows = len(features)
    answers = [np.asarray(booster.inplace_predict(features), np.float32).reshape(rows, -1) for booster in boosters]
    return answers[0] if len(answers) == 1 else np.hstack(answers)


def differing_values(found: Float32, expected: Float32) -> int:
    """Return how many values differ in a bit; all of them if the shapes differ."""
    if found.shape != expected.shape:
        return max(found.size, expected.size, 1)
    pairs = (np.ascontiguousarray(values, dtype=np.float32).view(np.uint32) for values in (found, expected))
    return int(np.count_nonzero(np.not_equal(*pairs)))


def _merged(documents: Sequence[Document]) -> Document:
    """Return the document of the merged booster, in the form that the installed XGBoost writes and reads."""
    for document in documents:
        _refuse_what_cannot_be_merged(document["learner"], documents[0]["learner"])
    trees: list[Document] = []
    outputs: list[int] = []
    base_scores: list[str] = []
    for document in documents:
        model = document["learner"]["gradient_booster"]["model"]
        first = len(base_scores)
        base_scores += document["learner"]["learner_model_param"]["base_score"].strip("[]").split(",")
        outputs += [first + output for output in model["tree_info"]]
        trees += model["trees"]
    first_learner = documents[0]["learner"]
    model = {
        **first_learner["gradient_booster"]["model"],
        "trees": [{**tree, "id": number} for number, tree in enumerate(trees)],
        "tree_info": outputs,
        "iteration_indptr": [0, len(trees)],
        "gbtree_model_param": {"num_parallel_tree": "1", "num_trees": str(len(trees))},
    }
    shape = {"base_score": f"[{','.join(base_scores)}]", "num_target": str(len(base_scores)), "num_class": "0"}
    learner = {
        **first_learner,
        "attributes": {},
        "gradient_booster": {**first_learner["gradient_booster"], "model": model},
        # Zero: the base scores are given, none is to be estimated.
        "learner_model_param": {**first_learner["learner_model_param"], **shape, "boost_from_average": "0"},
        "objective": MERGED_OBJECTIVE,
    }
    return {**documents[0], "learner": learner}


def _refuse_what_cannot_be_merged(learner: Document, first: Document) -> None:
    """Raise if a booster has something that does not add up as plain trees do, or reads other features."""
    kind, objective = learner["gradient_booster"]["name"], learner["objective"]["name"]
    if kind != "gbtree":
        raise CannotMergeError(f"boosters of the kind {kind!r} do not sum their trees as they are")
    if objective not in WITHOUT_LINK:
        raise CannotMergeError(f"the objective {objective!r} is not known to answer the plain sum of the trees")
    for key in ("feature_names", "feature_types"):
        if learner[key] != first[key]:
            raise CannotMergeError(f"the boosters have different {key.replace('_', ' ')}")
    sizes = [each["learner_model_param"]["num_feature"] for each in (learner, first)]
    if sizes[0] != sizes[1]:
        raise CannotMergeError(f"the boosters read different features: {' and '.join(sizes)} of them")
    model, shape = learner["gradient_booster"]["model"], learner["learner_model_param"]
    count = max(int(shape["num_class"]), int(shape["num_target"]), 1)
    scores = len(shape["base_score"].strip("[]").split(","))
    if scores != count:
        raise CannotMergeError(f"a booster has {scores} base scores for {count} outputs")
    if model["cats"]["enc"] or any(any(tree["split_type"]) for tree in model["trees"]):
        raise CannotMergeError("a booster splits on categories")
    if any(int(tree["tree_param"]["size_leaf_vector"]) > 1 for tree in model["trees"]):
        raise CannotMergeError("the leaves of a booster have several values")


def _arrays(document: Document) -> SummedTrees:
    learner = document["learner"]
    model = learner["gradient_booster"]["model"]
    base_scores = learner["learner_model_param"]["base_score"].strip("[]").split(",")
    return SummedTrees.of(model["trees"], model["tree_info"], np.array(base_scores, dtype=np.float32))


def _probes(document: Document) -> Float32:
    learner = document["learner"]
    trees = learner["gradient_booster"]["model"]["trees"]
    features = np.concatenate([np.asarray(tree["split_indices"], dtype=np.int64) for tree in trees])
    values = np.concatenate([np.asarray(tree["split_conditions"], dtype=np.float32) for tree in trees])
    is_split = np.concatenate([np.asarray(tree["left_children"]) >= 0 for tree in trees])
    return probe_rows(int(learner["learner_model_param"]["num_feature"]), features[is_split], values[is_split])
