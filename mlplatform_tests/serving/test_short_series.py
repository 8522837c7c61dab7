"""`observation.short` of an experiment: one answer to a series that begins inside the lookback, on every route."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from mlplatform import api
from mlplatform.cli.app import app
from mlplatform.config import ENTITY, load_experiment
from mlplatform.forecasts.answering import Answering
from mlplatform.registry import Forecaster, answer_batch
from mlplatform.registry.pairs import PairStore
from mlplatform_tests.serving.conftest import Platform, platform_in, series
from mlplatform_tests.serving.installation import Installation
from serving.schemas import ForecastAnswer

NAME = "tiny_forecast"
# Of twelve hours of lookback and two before it, the short series has five; no pair was fitted on the last two.
OLD, UNKNOWN, SHORT, HOURS, ROWS = 1, 4, 5, 5, 14
POLICIES = ("model", "naive", "skip", "refuse")


class Outcome(NamedTuple):
    """What a route answered.

    Attributes:
        values: by unit, as float32.
        fallbacks: the units with something that stands in.
        left_out: the units that are named as such.
        refused: whether the request was, because of the short series.
    """

    values: dict[int, list[float]]
    fallbacks: set[int]
    left_out: set[int]
    refused: bool = False


REFUSED = Outcome({}, set(), set(), refused=True)


@pytest.fixture(scope="module")
def young(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """A platform with two more units in the feature store, one of them short."""
    raw = series()
    one = raw[raw.entity_id == 3]
    late = one.tail(HOURS).assign(entity_id=np.int64(SHORT))
    return platform_in(
        tmp_path_factory.mktemp("young"), pd.concat([raw, one.assign(entity_id=np.int64(UNKNOWN)), late])
    )


@dataclass(frozen=True)
class Asking:
    """Asks every route about units; what is answered is the same question."""

    platform: Platform
    installation: Installation
    client: httpx.Client
    forecaster: Forecaster

    def rows(self, units: tuple[int, ...]) -> list[dict[str, Any]]:
        return [row for unit in units for row in self.platform.rows(ROWS, unit)]

    def feast(self, units: tuple[int, ...]) -> Outcome:
        return self._plain(self.client.post("/predict/feast/batch", json={"entities": units}))

    def feast_or_fail(self, units: tuple[int, ...]) -> Outcome:
        return self._plain(self.client.post("/predict/feast/batch", json={"entities": units, "on_error": "fail"}))

    def sent_rows(self, units: tuple[int, ...]) -> Outcome:
        return self._plain(self.client.post("/predict", json={"rows": self.rows(units)}))

    def v2_entities(self, units: tuple[int, ...]) -> Outcome:
        ids = {"name": ENTITY, "shape": [len(units)], "datatype": "INT64", "data": list(units)}
        return self._v2([ids], units)

    def v2_rows(self, units: tuple[int, ...]) -> Outcome:
        rows = self.rows(units)
        kinds = {
            ENTITY: "INT64",
            "event_timestamp": "BYTES",
            "load": "FP32",
            "oil": "FP32",
            "cooling": "BYTES",
        }
        tensors = [
            {"name": name, "shape": [len(rows)], "datatype": kind, "data": [row[name] for row in rows]}
            for name, kind in kinds.items()
        ]
        return self._v2(tensors, units)

    def invocations(self, units: tuple[int, ...]) -> Outcome:
        response = self.client.post("/invocations", json={"dataframe_records": self.rows(units)})
        if response.status_code != 200:
            assert "too short" in response.text
            return REFUSED
        answer = response.json()
        return _of_table(pd.DataFrame(answer["predictions"]), answer.get("skipped", {}))

    def timeseries(self, units: tuple[int, ...]) -> Outcome:
        inputs = [
            {
                "type": "multivariate_time_series",
                "name": str(unit),
                "series": [[row["load"], row["oil"], row["cooling"]] for row in self.rows((unit,))],
                "frequency": "H",
                "start_timestamp": self.rows((unit,))[0]["event_timestamp"],
            }
            for unit in units
        ]
        body = {"model": NAME, "inputs": inputs, "options": {"horizon": 3}}
        response = self.client.post("/v1/timeseries/forecast", json=body)
        if response.status_code != 200:
            assert response.json()["error"]["type"] == "short_window"
            return REFUSED
        answer = response.json()
        failed = [output for output in answer["outputs"] if output["status"] == "error"]
        assert answer["status"] == ("partial" if failed else "completed")
        assert {output["error"]["type"] for output in failed} <= {"short_window"}
        found = [output["content"][0] for output in answer["outputs"] if output["status"] == "completed"]
        return Outcome(
            {int(each["name"]): _float32(each["mean_forecast"]) for each in found},
            {int(each["name"]) for each in found if each["fallback"]},
            {int(output["error"]["param"]) for output in failed},
        )

    def pyfunc(self, units: tuple[int, ...]) -> Outcome:
        rows = self.platform.raw[self.platform.raw.entity_id.isin(units)]
        try:
            table = answer_batch(self.forecaster, rows)
        except ValueError as error:
            assert "observation.short" in str(error)  # noqa: PT017 - the other outcome is a table
            return REFUSED
        return _of_table(table, table.attrs["skipped"])

    def offline(self, units: tuple[int, ...]) -> Outcome:
        settings = self.installation.settings()
        config = load_experiment(NAME, settings=settings)
        answered, left_out = Answering(config, self.forecaster, settings, "now").answer(list(units))
        assert {each.reason for each in left_out} <= {"short"}
        gone = {each.entity for each in left_out}
        if answered is None:
            return Outcome({}, set(), gone)
        ids = answered.panel.entity_ids.tolist()
        values = {unit: points[:, 0].tolist() for unit, points in zip(ids, answered.answers.point, strict=True)}
        return Outcome(values, set(np.array(ids)[answered.is_fallback].tolist()), gone)

    def python(self, units: tuple[int, ...]) -> Outcome:
        found = api.forecast(NAME, units, settings=self.installation.settings())
        assert set(found.left_out["reason"]) <= {"short"}
        return Outcome(
            _by_unit(found.rows, "value"),
            set(found.rows.loc[found.rows["fallback"], "entity_id"]),
            set(found.left_out["entity_id"]),
        )

    def shell(self, units: tuple[int, ...]) -> Outcome:
        options = [word for unit in units for word in ("--entity", str(unit))]
        result = CliRunner().invoke(app, ["forecast", NAME, "--json", *options], env=self.installation.environ)
        found = json.loads(result.stdout)
        assert {each["reason"] for each in found["left_out"]} <= {"short"}
        rows = pd.DataFrame(found["rows"], columns=["entity_id", "value", "fallback"])
        return Outcome(
            _by_unit(rows, "value"),
            set(rows.loc[rows["fallback"].astype(bool), "entity_id"]),
            {int(each["entity_id"]) for each in found["left_out"]},
        )

    def _plain(self, response: httpx.Response) -> Outcome:
        answer = response.json()
        if response.status_code != 200:
            assert (response.status_code, answer["error"]["code"]) == (409, "short_window")
            return REFUSED
        ForecastAnswer.model_validate(answer)
        assert {error["code"] for error in answer.get("errors", ())} <= {"short_window"}
        forecasts = {each["entity"]: each for each in answer["forecasts"]}
        return Outcome(
            {unit: _float32(each["values"]["oil"]) for unit, each in forecasts.items()},
            {unit for unit, each in forecasts.items() if each["fallback"]},
            {error["entity"] for error in answer.get("errors", ())},
        )

    def _v2(self, tensors: list[dict[str, Any]], units: tuple[int, ...]) -> Outcome:
        response = self.client.post(f"/v2/models/{NAME}/infer", json={"inputs": tensors})
        if response.status_code != 200:
            assert "too short" in response.json()["error"]
            return REFUSED
        answer = response.json()
        told = answer["parameters"]
        gone = {error["entity"] for error in json.loads(told.get("errors", "[]"))}
        kept = [unit for unit in units if unit not in gone]
        assert answer["outputs"][0]["shape"] == [len(kept), 3]
        points = np.array(answer["outputs"][0]["data"]).reshape(len(kept), 3)
        reasons = json.loads(told.get("fallback_reasons", json.dumps([None] * len(kept))))
        return Outcome(
            {unit: _float32(values) for unit, values in zip(kept, points, strict=True)},
            {unit for unit, reason in zip(kept, reasons, strict=True) if reason},
            gone,
        )


# Those that are asked about what one request or caller sent, and those that answer whom they can.
STRICT: dict[str, Callable[[Asking, tuple[int, ...]], Outcome]] = {
    "rows": Asking.sent_rows,
    "v2 entities": Asking.v2_entities,
    "v2 rows": Asking.v2_rows,
    "invocations": Asking.invocations,
    "timeseries": Asking.timeseries,
}
REPORTING: dict[str, Callable[[Asking, tuple[int, ...]], Outcome]] = {
    "feast": Asking.feast,
    "pyfunc": Asking.pyfunc,
    "offline": Asking.offline,
    "python": Asking.python,
    "shell": Asking.shell,
}
ALL = {**STRICT, **REPORTING}


def _float32(values: Any) -> list[float]:
    found: list[float] = np.array(list(values), dtype=np.float32).tolist()
    return found


def _by_unit(table: pd.DataFrame, column: str) -> dict[int, list[float]]:
    return {unit: _float32(table.loc[table[ENTITY] == unit, column]) for unit in table[ENTITY].unique().tolist()}


def _of_table(table: pd.DataFrame, skipped: dict[str, str]) -> Outcome:
    return Outcome(
        _by_unit(table, "oil"),
        set(table.loc[table["is_fallback"], ENTITY]),
        {int(unit) for unit in skipped},
    )


@contextmanager
def asking(platform: Platform, folder: Path, short: str | None) -> Iterator[Asking]:
    installation = Installation(platform, folder)
    installation.set_policy({"short": short}, key="observation")
    store = PairStore(platform.settings)
    forecaster = store.load(store.resolve(NAME, "production"))
    # As a pair that is registered under this policy.
    contract = replace(forecaster.contract, short=short or "", season=1)
    with installation.serving() as client:
        yield Asking(platform, installation, client, replace(forecaster, contract=contract))


@pytest.mark.parametrize("short", POLICIES)
def test_all_routes_do_with_a_short_series_what_the_policy_says(young: Platform, tmp_path: Path, short: str) -> None:
    units = (SHORT, OLD, UNKNOWN)
    with asking(young, tmp_path, short) as routes:
        found = {name: ask(routes, units) for name, ask in ALL.items()}
        alone = {name: ask(routes, (SHORT,)) for name, ask in ALL.items()}
        others = routes.feast((OLD, UNKNOWN))
        failing = routes.feast_or_fail(units)
    # One that was not there at training is answered like any other; here its rows are those of the third unit.
    assert set(others.values) == {OLD, UNKNOWN}
    if short in ("model", "naive"):
        expected = found["feast"]
        assert set(expected.values) == set(units)
        assert {unit: expected.values[unit] for unit in (OLD, UNKNOWN)} == others.values
        assert (expected.fallbacks, expected.left_out) == ({SHORT} if short == "naive" else set(), set())
        assert found == dict.fromkeys(ALL, expected)
        assert failing == expected
        one = Outcome({SHORT: expected.values[SHORT]}, expected.fallbacks, set())
        assert alone == dict.fromkeys(ALL, one)
        return
    without = others._replace(left_out={SHORT})
    refusing = STRICT if short == "refuse" else {}
    assert found == {name: REFUSED if name in refusing else without for name in ALL}
    # Who asks to fail is told so.
    assert failing == REFUSED
    nobody = Outcome({}, set(), {SHORT})
    assert alone == {name: nobody if name in ("offline", "python", "shell") else REFUSED for name in ALL}


def test_without_a_word_the_model_answers_what_is_stored_and_rows_must_be_enough(
    young: Platform, tmp_path: Path
) -> None:
    units = (SHORT, OLD)
    with asking(young, tmp_path, None) as routes:
        expected = routes.feast(units)
        assert (set(expected.values), expected.fallbacks, expected.left_out) == (set(units), set(), set())
        for name in ("v2 entities", "offline", "python", "shell"):
            assert ALL[name](routes, units) == expected
        response = routes.client.post("/predict", json={"rows": routes.rows(units)})
        assert (response.status_code, response.json()["error"]["code"]) == (422, "invalid_rows")
        assert routes.pyfunc(units) == Outcome({OLD: expected.values[OLD]}, set(), {SHORT})


@pytest.mark.parametrize("missing", [1, 2])
@pytest.mark.parametrize("short", ["skip", "refuse"])
def test_a_tenth_of_the_lookback_may_be_missing_from_rows_as_from_the_store(
    young: Platform, tmp_path: Path, short: str, missing: int
) -> None:
    """A tenth of twelve hours is one; the two hours before the lookback may be missing, too."""
    with asking(young, tmp_path, short) as routes:
        rows = [*young.rows(12 - missing, 3), *young.rows(ROWS, OLD)]
        response = routes.client.post("/predict", json={"rows": rows})
        if missing == 1:
            assert [each["entity"] for each in response.json()["forecasts"]] == [3, OLD]
        elif short == "skip":
            (error,) = response.json()["errors"]
            assert (error["entity"], error["code"]) == (3, "short_window")
            assert "begins inside the lookback" in error["message"]
        else:
            assert (response.status_code, response.json()["error"]["code"]) == (409, "short_window")


def test_rows_may_call_their_entity_as_the_dataset_does(young: Platform, tmp_path: Path) -> None:
    with asking(young, tmp_path, "skip") as routes:
        rows = [
            {("unit" if name == ENTITY else name): value for name, value in row.items()}
            for row in routes.rows((OLD, SHORT))
        ]
        answer = routes.client.post("/predict", json={"rows": rows}).json()
        assert [each["entity"] for each in answer["forecasts"]] == [OLD]
        assert [each["entity"] for each in answer["errors"]] == [SHORT]


def test_the_refusal_of_one_alone_names_it(young: Platform, tmp_path: Path) -> None:
    with asking(young, tmp_path, "skip") as routes:
        response = routes.client.post("/predict/feast/batch", json={"entities": [SHORT]})
        error = response.json()["error"]
        assert (response.status_code, error["code"]) == (409, "short_window")
        assert [detail["found"] for detail in error["details"]] == [
            f"{SHORT}: a series that begins inside the lookback"
        ]
        assert "leaves them out, and no other is asked for" in error["message"]


def test_bad_rows_beside_a_short_series_are_named_as_ever(young: Platform, tmp_path: Path) -> None:
    with asking(young, tmp_path, "skip") as routes:
        rows = [*routes.rows((SHORT, OLD)), {**young.rows(1, 2)[0], ENTITY: ["no id"]}]
        response = routes.client.post("/predict", json={"rows": rows})
        assert (response.status_code, response.json()["error"]["code"]) == (422, "invalid_rows")
