"""The command as a shell sees it: exit status, standard output, standard error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from mlplatform.api import Forecast
from mlplatform.cli import show, training
from mlplatform.cli.app import app
from mlplatform.testing.yard import EXPERIMENT, Yard


@pytest.fixture
def run(trained_yard: Yard, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command in the trained installation, which it must not change."""
    for name, value in trained_yard.environ.items():
        monkeypatch.setenv(name, value)

    def run(*words: str) -> Result:
        return CliRunner().invoke(app, list(words))

    return run


@pytest.mark.parametrize("command", ["status", "history", "compare", "doctor", "check", "forecast"])
def test_every_command_that_looks_has_json(run: Any, command: str) -> None:
    words = [command] if command in ("status", "doctor", "check") else [command, EXPERIMENT]
    result = run(*words, "--json")
    assert result.exit_code in (0, 1), result.output
    assert json.loads(result.stdout)


def test_numbers_are_shown_without_powers_of_ten_as_far_as_people_write_them() -> None:
    values = [11283.44, -1234567.8, 9999.96, 99999.6, 2000.0, 0.123456, 0.0, 2.5e8, 1e-5, float("nan"), float("inf")]
    shown = ["11283", "-1234568", "10000", "100000", "2000", "0.12346", "0", "2.5e+08", "1e-05", "-", "inf"]
    assert [show.cell(value) for value in values] == shown


def test_a_version_alone_is_shown_with_its_scores(run: Any) -> None:
    said = run("compare", EXPERIMENT).stdout
    assert "reference_mae" in said
    assert said.endswith("both are version 1, so there is nothing to compare it with\n")


def test_status_is_a_table(run: Any) -> None:
    result = run("status")
    assert result.exit_code == 0
    assert EXPERIMENT in result.stdout
    assert "never trained:" in result.stdout


def test_an_error_is_one_line_with_the_reason(run: Any) -> None:
    result = run("history", "nothing")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("mlplatform: unknown experiment 'nothing'; known: ")
    assert "Traceback" not in result.stderr


def test_a_server_of_an_unknown_experiment_does_not_begin(run: Any) -> None:
    result = run("serve", EXPERIMENT, "yard_forcast")
    assert result.exit_code == 1
    assert result.stderr.startswith("mlplatform: unknown experiment 'yard_forcast'; ")
    assert "--experiment" not in result.stderr


@pytest.mark.parametrize(("label", "shown"), [("benign", ["label", "probability"]), (None, ["value"])])
def test_the_value_of_a_classification_is_shown_as_the_probability_that_it_is(
    label: str | None, shown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tables: list[pd.DataFrame] = []
    monkeypatch.setattr(show, "frame", tables.append)
    columns = ["entity_id", "timestamp", "target", "value", "lower", "upper", "label", "stale"]
    row = [1, pd.Timestamp("2026-01-01", tz="UTC"), "y", 0.875, None, None, label, False]
    rows = pd.DataFrame([row], columns=columns)
    training._print(Forecast("e", 1, "p", "now", rows, pd.DataFrame(columns=["entity", "reason", "detail"])), None)
    assert list(tables[0]) == ["entity_id", "timestamp", "target", *shown]


def test_features_that_are_stale_are_said_to_be(run: Any) -> None:
    result = run("forecast", EXPERIMENT)
    rows = json.loads(run("forecast", EXPERIMENT, "--json").stdout)["rows"]
    count = len({row["entity_id"] for row in rows if row["stale"]})
    assert count > 0
    assert f"features of {count} entities are stale: their newest row is up to " in result.stderr


def test_a_what_if_that_cannot_be_read_is_named(run: Any, tmp_path: Path) -> None:
    absent = run("forecast", EXPERIMENT, "--future", str(tmp_path / "nowhere.csv"))
    assert (absent.exit_code, "nowhere.csv is not a file" in " ".join(absent.stderr.split())) == (2, True)
    binary = tmp_path / "binary.csv"
    binary.write_bytes(bytes(range(128, 256)) * 10)
    result = run("forecast", EXPERIMENT, "--future", str(binary))
    assert result.exit_code == 1
    assert result.stderr.startswith(f"mlplatform: {binary} cannot be read as CSV: ")


@pytest.mark.parametrize("words", [["status", "--json"], ["check", "--explain", EXPERIMENT]])
def test_who_closes_the_pipe_hears_nothing(words: list[str], trained_yard: Yard) -> None:
    command = [sys.executable, "-m", "mlplatform.cli", *words]
    environ = {**os.environ, **trained_yard.environ}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 141


def test_a_folder_that_cannot_be_used_is_named_with_its_variable(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("MLPLATFORM_HOME", str(file))
    result = run("train", EXPERIMENT)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].endswith(
        f"Not a directory; give its owner the right, or set MLPLATFORM_HOME (now {file}) to a folder of yours"
    )


def test_wrong_usage_is_2(run: Any) -> None:
    assert run("histery").exit_code == 2
    assert run("forecast", EXPERIMENT, "--out", "x.xlsx").exit_code == 2


def test_a_forecast_goes_to_a_file(run: Any, tmp_path: Path) -> None:
    for suffix, read in ((".csv", pd.read_csv), (".parquet", pd.read_parquet)):
        path = tmp_path / f"rows{suffix}"
        assert run("forecast", EXPERIMENT, "--out", str(path)).exit_code == 0
        assert len(read(path)) == 12


def test_a_forecast_tells_times_as_clocks_of_a_zone_show_them(run: Any) -> None:
    plain = json.loads(run("forecast", EXPERIMENT, "--json").stdout)["rows"]
    local = json.loads(run("forecast", EXPERIMENT, "--timezone", "Asia/Tokyo", "--json").stdout)["rows"]
    assert {row["timestamp"][-6:] for row in local} == {"+09:00"}
    assert [pd.Timestamp(row["timestamp"]) for row in local] == [pd.Timestamp(row["timestamp"]) for row in plain]
    assert [row["value"] for row in local] == [row["value"] for row in plain]
    # The dataset's own zone, which is UTC.
    own = json.loads(run("forecast", EXPERIMENT, "--timezone", "local", "--json").stdout)["rows"]
    assert [row["timestamp"] for row in own] == [row["timestamp"] for row in plain]
    refused = run("forecast", EXPERIMENT, "--timezone", "Berlin")
    assert (refused.exit_code, "'Berlin'" in refused.stderr) == (1, True)


def test_whoever_begins_is_shown_how_by_an_experiment_of_their_own(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLPLATFORM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'none.db'}")
    said = run("status").stdout
    assert f"try: mlplatform train {EXPERIMENT}\n" in said
    assert f"never trained: {EXPERIMENT}, " in said


def test_deletion_asks_first(run: Any, trained_yard: Yard) -> None:
    result = run("delete", EXPERIMENT)
    assert result.exit_code == 3
    assert "IS IN PRODUCTION" in result.stdout
    assert trained_yard.pairs.find(EXPERIMENT, "production") is not None


def test_new_writes_an_experiment(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPLATFORM_CONF_DIR", str(tmp_path / "conf"))
    (tmp_path / "conf").mkdir()
    times = pd.date_range("2024-01-01", periods=500, freq="h")
    pd.DataFrame({"time": times, "load": range(500)}).to_csv(tmp_path / "plant.csv", index=False)
    result = run("new", str(tmp_path / "plant.csv"))
    assert result.exit_code == 0, result.output
    assert (tmp_path / "conf" / "experiment" / "plant_xgboost.yaml").read_text() == result.stdout
    assert run("new", str(tmp_path / "plant.csv")).exit_code == 1
    assert run("check").exit_code == 0


def test_help_loads_nothing_heavy() -> None:
    program = """
import sys
sys.argv = ["mlplatform", "--help"]
from mlplatform.cli.app import main
try:
    main()
finally:
    print(*(set(sys.modules) & {"pandas", "mlflow", "dagster", "pydantic", "numpy", "rich"}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "Commands:" in done.stdout
    assert done.stdout.splitlines()[-1] == ""
