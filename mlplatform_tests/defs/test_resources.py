"""Runtime configuration: overrides, then requested versions, then active ones, then the YAML; all of it checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlplatform.config import ConfigError, load_experiment
from mlplatform.defs.resources import PlatformResource, TrainingResource
from mlplatform.promotion.active_config import active_config_path, write_active_config
from mlplatform.settings import Settings
from mlplatform.testing.yard import EXPERIMENT, GROUPS, write_conf, write_experiment, write_option


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The yard, with a second version of each group that it allows, and a third that it does not."""
    conf = tmp_path / "conf"
    write_conf(conf, experiment={"allowed": {"split": ["longer"], "features": ["fewer"], "model": ["deeper"]}})
    write_option(conf, "split/longer", {**GROUPS["split"], "version": "longer", "reference_steps": 240})
    write_option(conf, "features/fewer", {"version": "fewer", "columns": ["load_pu", "top_oil_c"]})
    write_option(conf, "features/without_target", {"version": "without_target", "columns": ["load_pu"]})
    params = {**GROUPS["model"]["params"], "max_depth": 5}
    write_option(conf, "model/deeper", {**GROUPS["model"], "version": "deeper", "params": params})
    write_option(conf, "model/forbidden", {**GROUPS["model"], "version": "forbidden"})
    return Settings.from_env({"MLPLATFORM_HOME": str(tmp_path / "home"), "MLPLATFORM_CONF_DIR": str(conf)})


def test_without_a_request_the_yaml_decides(settings: Settings) -> None:
    assert TrainingResource().resolve(EXPERIMENT, settings) == load_experiment(EXPERIMENT, settings=settings)


def test_the_active_versions_are_the_defaults(settings: Settings) -> None:
    promoted = TrainingResource(split_version="longer@20240220T0000", model_version="deeper")
    write_active_config(EXPERIMENT, promoted.resolve(EXPERIMENT, settings).versions, 4, settings)
    active = TrainingResource().resolve(EXPERIMENT, settings)
    assert active.versions == {
        "split_version": "longer@20240220T0000",
        "feature_version": "yard",
        "model_version": "deeper",
    }
    assert active.split.reference_steps == 240


def test_a_requested_version_goes_before_the_active_one(settings: Settings) -> None:
    active = TrainingResource(split_version="longer", feature_version="fewer").resolve(EXPERIMENT, settings)
    write_active_config(EXPERIMENT, active.versions, 4, settings)
    config = TrainingResource(split_version="yard@20240215T1200").resolve(EXPERIMENT, settings)
    assert config.versions["split_version"] == "yard@20240215T1200"
    assert config.versions["feature_version"] == "fewer"


def test_overrides_go_before_everything(settings: Settings) -> None:
    asked = TrainingResource(model_version="deeper", overrides=["model.params.max_depth=2", "seed=9"])
    config = asked.resolve(EXPERIMENT, settings)
    assert (config.model.params["max_depth"], config.seed) == (2, 9)
    assert config.versions["model_version"] == "deeper"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"split_version": "no_such"}, "split_version 'no_such' is unknown"),
        ({"feature_version": "no_such"}, "feature_version 'no_such' is unknown"),
        ({"model_version": "no_such"}, "model_version 'no_such' is unknown"),
        ({"model_version": "forbidden"}, "model_version 'forbidden' is not allowed for 'yard_xgboost'; allowed: yard"),
        ({"feature_version": "without_target"}, "feature_version 'without_target' is not allowed"),
        ({"split_version": "yard@yesterday"}, "YYYYMMDDTHHMM"),
        ({"split_version": "yard@20241332T0000"}, "is not a date"),
        ({"model_version": "deeper@20240101T0000"}, "only a split version takes a cut-off"),
        ({"overrides": ["no_such_key=1"]}, "no_such_key"),
        ({"overrides": ["model.params.no_such=1"]}, "no_such"),
        ({"overrides": ["horizon=many"]}, "horizon"),
        ({"overrides": ["horizon=9999"]}, "horizon 9999 is longer than"),
        ({"overrides": ["features=without_target"]}, "targets names 'top_oil_c', which is not among features.columns"),
        ({"overrides": ["not an override"]}, "not an override"),
        ({"overrides": ["split.folds=3"]}, "asks for 3 folds, but the asset has 2 partitions"),
        ({"overrides": ["dataset.source.options.seed=8"]}, "a run cannot change the dataset"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(settings: Settings, asked: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        TrainingResource(**asked).resolve(EXPERIMENT, settings)  # type: ignore[arg-type]
    assert message in str(error.value)


def test_an_active_version_that_is_no_longer_allowed_is_named(settings: Settings) -> None:
    active = TrainingResource(model_version="deeper").resolve(EXPERIMENT, settings)
    write_active_config(EXPERIMENT, active.versions, 4, settings)
    assert settings.conf_dir is not None
    write_experiment(settings.conf_dir, EXPERIMENT)
    with pytest.raises(ConfigError, match=r"active_config\.yaml: model_version 'deeper' is not allowed.*delete"):
        TrainingResource().resolve(EXPERIMENT, settings)
    active_config_path(EXPERIMENT, settings).unlink()
    TrainingResource().resolve(EXPERIMENT, settings)


def test_every_version_says_where_it_comes_from(settings: Settings) -> None:
    yaml = dict.fromkeys(("split_version", "feature_version", "model_version"), "the experiment's YAML")
    assert TrainingResource().sources(EXPERIMENT, settings) == yaml
    active = TrainingResource(split_version="longer").resolve(EXPERIMENT, settings)
    write_active_config(EXPERIMENT, active.versions, 4, settings)
    assert set(TrainingResource().sources(EXPERIMENT, settings).values()) == {"active_config.yaml"}
    assert TrainingResource(model_version="deeper").sources(EXPERIMENT, settings) == {
        "split_version": "active_config.yaml",
        "feature_version": "active_config.yaml",
        "model_version": "the request",
    }


def test_a_damaged_active_config_does_not_matter_where_everything_is_asked_for(settings: Settings) -> None:
    path = active_config_path(EXPERIMENT, settings)
    path.parent.mkdir(parents=True)
    path.write_text("split_version: 7\n")
    asked = TrainingResource(split_version="longer", feature_version="fewer", model_version="deeper")
    assert asked.resolve(EXPERIMENT, settings).versions["split_version"] == "longer"
    with pytest.raises(ConfigError, match=r"active_config\.yaml: split_version is 7"):
        TrainingResource(split_version="longer").resolve(EXPERIMENT, settings)


def test_a_version_written_in_the_experiment_itself_can_be_active(settings: Settings) -> None:
    assert settings.conf_dir is not None
    inline = {**GROUPS["split"], "version": "of_its_own"}
    write_experiment(settings.conf_dir, EXPERIMENT, split=inline)
    config = TrainingResource().resolve(EXPERIMENT, settings)
    write_active_config(EXPERIMENT, config.versions, 1, settings)
    assert TrainingResource().resolve(EXPERIMENT, settings).versions["split_version"] == "of_its_own"
    later = TrainingResource(split_version="of_its_own@20240215T1200").resolve(EXPERIMENT, settings)
    assert later.split.version_id == "of_its_own@20240215T1200"


def test_a_dry_run_is_part_of_the_policy(settings: Settings) -> None:
    config = load_experiment(EXPERIMENT, settings=settings)
    assert TrainingResource().with_dry_run(config) == config
    assert TrainingResource(dry_run=True).with_dry_run(config).promotion.dry_run


def test_the_platform_s_environment_goes_before_the_process_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPLATFORM_HOME", str(tmp_path / "process"))
    monkeypatch.setenv("MLPLATFORM_ADMIN_TOKEN", "from-the-process")
    settings = PlatformResource(environment={"MLPLATFORM_HOME": str(tmp_path / "given")}).settings
    assert settings.home == tmp_path / "given"
    assert settings.admin_token == "from-the-process"
