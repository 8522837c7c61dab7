"""What the platform's own model families promise beyond the contract of all families."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from mlplatform.models.base import Model, create_model
from mlplatform.plugins import MODELS
from mlplatform.testing.model_samples import fitted, samples_for, spec_for

CASES = [(name, task) for name, family in MODELS for task in sorted(family.tasks)]


def tree_counts(model: Model) -> list[int]:
    boosters: list[Any] = [*getattr(model, "parts_", []), *([model.booster_] if hasattr(model, "booster_") else [])]
    return [one.tree_count_ if hasattr(one, "tree_count_") else one.num_boosted_rounds() for one in boosters]


@pytest.mark.parametrize(("name", "task"), [case for case in CASES if case[0].startswith(("xgboost", "catboost"))])
def test_a_refit_grows_the_trees_it_is_given(name: str, task: str) -> None:
    spec = spec_for(task)
    count = len(fitted(name, spec)[1].iterations)
    wanted = (2, 1, 3)[:count]
    for validation in (None, samples_for(spec, 1)):
        assert tree_counts(fitted(name, spec, iterations=wanted, validation=validation)[0]) == list(wanted)


def test_a_model_of_an_unknown_parameter_is_refused() -> None:
    with pytest.raises(ValidationError, match="colour"):
        create_model("ridge", {"colour": 1}, spec_for("forecast"))
