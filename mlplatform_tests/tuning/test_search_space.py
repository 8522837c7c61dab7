"""Search spaces: bounds, grids, and dimensions that depend on others."""

from __future__ import annotations

import optuna
import pytest

from mlplatform.config import CalendarConfig, ConfigError, ExperimentConfig, SearchDimension, check_conditions
from mlplatform.models.families.xgboost import XGBoostForecast
from mlplatform.settings import Settings
from mlplatform.testing.experiments import pump_config
from mlplatform.testing.search_process import searching
from mlplatform.tuning.search_space import space_of, suggest

DEPTH = {"max_depth": SearchDimension(type="int", low=1, high=4)}
SPACE = {
    "whole": SearchDimension(type="int", low=3, high=9, step=3),
    "wide": SearchDimension(type="int", low=1, high=1000, log=True),
    "small": SearchDimension(type="float", low=1e-4, high=1e-2, log=True),
    "grid": SearchDimension(type="float", low=0.0, high=1.0, step=0.25),
    "kind": SearchDimension(type="categorical", choices=("a", "b")),
}
CONDITIONAL = {
    # Before its parent, to show that the order of the file does not matter.
    "grandchild": SearchDimension(type="float", low=0, high=1, when={"child": (2,), "kind": ("a", "b")}),
    "child": SearchDimension(type="int", low=1, high=2, when={"kind": ("a",)}),
    "kind": SearchDimension(type="categorical", choices=("a", "b", "c")),
}


def test_suggestions_stay_in_bounds_and_on_the_grid() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = [suggest(study.ask(), SPACE) for _ in range(60)]
    assert {values["whole"] for values in seen} == {3, 6, 9}
    assert all(isinstance(values["wide"], int) and 1 <= values["wide"] <= 1000 for values in seen)
    assert sum(values["wide"] <= 32 for values in seen) > 15  # half of a logarithmic range, a thirtieth of a linear one
    assert all(1e-4 <= values["small"] <= 1e-2 for values in seen)
    assert {values["grid"] for values in seen} <= {0.0, 0.25, 0.5, 0.75, 1.0}
    assert {values["kind"] for values in seen} == {"a", "b"}


def test_the_experiments_own_space_goes_before_the_familys(config: ExperimentConfig) -> None:
    assert space_of(config) == XGBoostForecast.search_space("forecast")
    assert space_of(searching(config, DEPTH)) == DEPTH
    assert space_of(searching(config, {})) == {}


def test_a_search_is_also_without_the_calendar_where_an_experiment_reads_it(config: ExperimentConfig) -> None:
    features = config.features.model_copy(update={"calendar": CalendarConfig(parts=("hour",))})
    reading = config.model_copy(update={"features": features})
    assert space_of(reading)["calendar"].choices == (True, False)
    assert space_of(reading).keys() - {"calendar"} == space_of(config).keys()
    assert space_of(searching(reading, DEPTH)) == DEPTH


def test_a_conditional_dimension_is_suggested_only_where_its_conditions_hold() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = [suggest(study.ask(), CONDITIONAL) for _ in range(80)]
    assert all(("child" in values) == (values["kind"] == "a") for values in seen)
    assert all(("grandchild" in values) == (values.get("child") == 2) for values in seen)
    assert len({tuple(sorted(values)) for values in seen}) == 3


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"eta": [0.1]}, "when names 'eta', which is not a dimension of the search space; allowed: subsample"),
        ({"subsample": [0.4]}, "when asks for subsample = 0.4, a value that it never has"),
        ({"subsample": [0.55]}, "when asks for subsample = 0.55, a value that it never has"),
        ({"subsample": ["all"]}, "when asks for subsample = 'all', a value that it never has"),
        ({"subsample": []}, "at least 1 item"),
        ({"max_depth": [2]}, "when leads back to 'max_depth' itself"),
    ],
)
def test_impossible_conditions_are_refused(
    settings: Settings, conditions: dict[str, list[object]], message: str
) -> None:
    space = {
        "max_depth": {"type": "int", "low": 1, "high": 4, "when": conditions},
        "subsample": {"type": "float", "low": 0.5, "high": 1.0, "step": 0.1},
    }
    with pytest.raises(ConfigError, match=message):
        pump_config(settings, f"model.search_space={_hydra(space)}")


def test_possible_conditions_are_accepted(settings: Settings) -> None:
    space = {
        "max_depth": {"type": "int", "low": 1, "high": 4, "when": {"subsample": [0.7, 1.0]}},
        "subsample": {"type": "float", "low": 0.5, "high": 1.0, "step": 0.1},
    }
    found = pump_config(settings, f"model.search_space={_hydra(space)}").model.search_space
    assert found is not None
    assert found["max_depth"].when == {"subsample": (0.7, 1.0)}


def test_a_circle_of_conditions_is_refused() -> None:
    circle = {
        "a": SearchDimension(type="int", low=1, high=2, when={"b": (1,)}),
        "b": SearchDimension(type="int", low=1, high=2, when={"c": (1,)}),
        "c": SearchDimension(type="int", low=1, high=2, when={"a": (1,)}),
        "outside": SearchDimension(type="int", low=1, high=2, when={"a": (1,)}),
    }
    with pytest.raises(ValueError, match=r"a\.when leads back to 'a' itself"):
        check_conditions(circle)


def test_an_unknown_executor_is_refused(settings: Settings) -> None:
    with pytest.raises(ConfigError, match=r"tuning.executor: unknown tuning executor 'dask'; known: inline"):
        pump_config(settings, "tuning.executor=dask")


def _hydra(value: object) -> str:
    """Return a value as Hydra's override grammar has it."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_hydra(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_hydra, value)) + "]"
    return str(value)
