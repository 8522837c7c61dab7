"""Owners, tags and crons in YAML: what is accepted, Dagster accepts; what is refused, is refused with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from dagster import AssetSpec, DagsterInvalidDefinitionError, ScheduleDefinition
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.config import ConfigError, load_all_datasets, load_all_experiments, load_dataset, load_experiment
from mlplatform.config.dagster_formats import check_cron, check_owner, check_tag_key, check_tag_value
from mlplatform.settings import Settings
from mlplatform.testing.yard import EXPERIMENT, FLEET, GROUPS, write_conf, write_experiment, write_option

CRONS = (
    "15 4 * * *",
    "*/10 0-6,20 1,15 * mon-fri",
    "0 0 29 feb *",
    "5 * * * 7",
    "0 12 * JAN-MAR,Dec Sun",
    "0 8-18/2 31 1 *",
    "@daily",
)
NO_CRONS = {
    "": "fields",
    "daily": "fields",
    "* * * *": "fields",
    "0 0 0 * * *": "fields",
    "60 * * * *": "minute",
    "-1 * * * *": "minute",
    "*/0 * * * *": "minute",
    "5/10 * * * *": "minute",
    "0 24 * * *": "hour",
    "0 9-7 * * *": "hour",
    "0 0 0 * *": "day of month",
    "0 0 * 13 *": "month",
    "0 0 * * 8": "day of week",
    "0 0 * * ,": "day of week",
    "0 0 30 2 *": "has a day 30",
    "0 0 31 2,4,6 *": "has a day 31",
    "@reboot": "fields",
}


def schedule(cron: str) -> ScheduleDefinition:
    return ScheduleDefinition(name="schedule", job_name="job", cron_schedule=cron)


@pytest.mark.parametrize("cron", CRONS)
def test_a_cron_is_one_for_dagster(cron: str) -> None:
    assert schedule(check_cron(cron)).cron_schedule == cron


@pytest.mark.parametrize("cron", NO_CRONS)
def test_what_is_no_cron_is_refused_by_field(cron: str) -> None:
    with pytest.raises(ValueError, match=NO_CRONS[cron]):
        check_cron(cron)


PART = st.from_regex(r"(\*|[0-9]{1,2}(-[0-9]{1,2})?|jan-mar|sun)(/[0-9]{1,2})?(,[0-9]{1,2})?", fullmatch=True)


@given(st.lists(PART, min_size=5, max_size=5))
def test_whatever_cron_is_accepted_dagster_accepts(fields: list[str]) -> None:
    cron = " ".join(fields)
    try:
        check_cron(cron)
    except ValueError:
        return
    schedule(cron)


@given(st.one_of(st.text(max_size=20), st.from_regex(r"team:.{0,4}|[A-z.+-]{1,4}@[A-z.]{1,6}\.[a-z|]{1,9}")))
def test_whatever_owner_is_accepted_dagster_accepts(owner: str) -> None:
    try:
        check_owner(owner)
    except ValueError:
        return
    assert AssetSpec("key", owners=[owner]).owners == [owner]


@pytest.mark.parametrize("owner", ["team:forecasting", "team:power grid", "me@example.com", "a.b+c@x-y.example.org"])
def test_owners_are_teams_and_addresses(owner: str) -> None:
    assert check_owner(owner) == owner


@pytest.mark.parametrize("owner", ["", "forecasting", "team:", "team: ", "me@example", "a person <me@example.com>"])
def test_other_owners_are_refused(owner: str) -> None:
    with pytest.raises(ValueError, match="email address or team:<name>"):
        check_owner(owner)


@given(st.text(max_size=70), st.text(max_size=70))
def test_whatever_tag_is_accepted_dagster_accepts(key: str, value: str) -> None:
    try:
        check_tag_key(key)
        check_tag_value(value)
    except ValueError:
        return
    assert AssetSpec("key", tags={key: value}).tags == {key: value}


@pytest.mark.parametrize("key", ["", "a b", "a/b/c", "x" * 64, "dagster/kind", "dagster/priority"])
def test_other_keys_of_tags_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match="tag"):
        check_tag_key(key)


@pytest.mark.parametrize("value", ["a b", "x" * 64, "ü"])
def test_other_values_of_tags_are_refused(value: str) -> None:
    with pytest.raises(ValueError, match="tag"):
        check_tag_value(value)
    with pytest.raises(DagsterInvalidDefinitionError):
        AssetSpec("key", tags={"key": value})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    write_conf(tmp_path / "conf")
    return Settings.from_env({"MLPLATFORM_HOME": str(tmp_path / "home"), "MLPLATFORM_CONF_DIR": str(tmp_path / "conf")})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"owners": ["nobody"]}, "owners.0: an owner is an email address"),
        ({"tags": {"a b": "c"}}, "tags.a b.[key]: the key of a tag"),
        ({"tags": {"tier": 1}}, "tags.tier = 1: Input should be a valid string"),
        ({"automation": {"monitor_cron": "hourly"}}, "automation.monitor_cron: a cron has the fields minute"),
        ({"automation": {"drift_interval_s": 1}}, "automation.drift_interval_s = 1"),
        ({"automation": {"cron": "@daily"}}, "allowed: monitor_cron, forecast_cron, drift_interval_s"),
    ],
)
def test_an_experiment_says_what_is_wrong(settings: Settings, values: dict[str, Any], message: str) -> None:
    assert settings.conf_dir is not None
    write_experiment(settings.conf_dir, EXPERIMENT, **values)
    with pytest.raises(ConfigError) as error:
        load_experiment(EXPERIMENT, settings=settings)
    assert message in str(error.value)


def test_a_dataset_says_what_is_wrong(settings: Settings) -> None:
    assert settings.conf_dir is not None
    automation = {"materialize_cron": "0 0 30 2 *"}
    write_option(settings.conf_dir, "dataset/yard", {**GROUPS["dataset"], "automation": automation})
    with pytest.raises(ConfigError, match=r"automation\.materialize_cron: no month of cron"):
        load_dataset("yard", settings)


def test_what_is_only_said_about_a_dataset_changes_no_fold(settings: Settings) -> None:
    before = load_experiment(EXPERIMENT, settings=settings)
    assert settings.conf_dir is not None
    said = {"owners": ["team:yard"], "tags": {"tier": "gold"}, "automation": {"new_data_interval_s": 300}}
    source = {"uri": "simulation://fleet", "options": FLEET}
    write_option(settings.conf_dir, "dataset/yard", {**GROUPS["dataset"], "source": source, **said})
    after = load_experiment(EXPERIMENT, settings=settings)
    assert after.dataset.owners == ("team:yard",)
    assert after.fold_digest() == before.fold_digest()


def test_all_are_loaded_and_each_broken_one_says_why(settings: Settings) -> None:
    conf = settings.conf_dir
    assert conf is not None
    write_experiment(conf, "hopeless", horizon=9999)
    (conf / "experiment" / "no_text.yaml").write_bytes(b"# @package _global_\nname: \xff")
    (conf / "dataset" / "half.yaml").write_text("columns: [")
    experiments, broken = load_all_experiments(settings)
    assert EXPERIMENT in experiments
    assert "fleet_xgboost" in experiments
    assert set(broken) == {"hopeless", "no_text"}
    assert "horizon 9999 is longer than" in str(broken["hopeless"])
    datasets, broken = load_all_datasets(settings)
    assert {"yard", "fleet"} <= set(datasets)
    assert set(broken) == {"half"}


def test_without_a_configuration_folder_nothing_is_loaded(tmp_path: Path) -> None:
    settings = Settings.from_env({"MLPLATFORM_HOME": str(tmp_path), "MLPLATFORM_CONF_DIR": str(tmp_path / "absent")})
    for load in (load_all_experiments, load_all_datasets):
        with pytest.raises(ConfigError, match="absent does not exist"):
            load(settings)
