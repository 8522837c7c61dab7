"""From YAML files to checked experiments and datasets, one or all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import ValidationError

from mlplatform.config.alerts import AlertsConfig
from mlplatform.config.base import ConfigError
from mlplatform.config.composition import compose, require_folders, state_of_files
from mlplatform.config.dataset import DatasetConfig, source_mistakes
from mlplatform.config.derived import derived_values
from mlplatform.config.experiment import ExperimentConfig, parse_experiment
from mlplatform.config.messages import lines_of
from mlplatform.config.serving import ServingConfig
from mlplatform.settings import PACKAGED_CONF, Settings

EXPERIMENT = "experiment"
# Hydra puts a file's keys below the name of its group unless the file begins with this.
WHOLE = "# @package _global_"
# The packaged options of these groups are examples; those of the others are what experiments are made of.
EXAMPLES = (EXPERIMENT, "dataset")

Loaded = TypeVar("Loaded", ExperimentConfig, DatasetConfig, ServingConfig)
Single = TypeVar("Single", DatasetConfig, ServingConfig, AlertsConfig)


def experiment_names(settings: Settings | None = None) -> tuple[str, ...]:
    """Return the names of all experiments in the configuration folders, sorted."""
    return options(EXPERIMENT, settings)


def require_experiments(names: Iterable[str], settings: Settings, named_by: str = "") -> None:
    """Check that there are experiments of these names, by their files alone.

    Parameters:
        named_by: what named them where that is no argument, such as a variable of the environment.

    Raises:
        ConfigError: if there is none of a name; says where was looked, and what is called nearly so.
    """
    known = experiment_names(settings)
    unknown = [name for name in names if name not in known]
    if not unknown:
        return
    near = [close for name in unknown for close in get_close_matches(name.lower(), known, n=1)]
    parts = [f"unknown experiment {', '.join(map(repr, unknown))}{f' in {named_by}' if named_by else ''}"]
    parts += [f"did you mean {' and '.join(near)}?"] if near else []
    parts.append(f"known: {', '.join(known) or 'none'}")
    if settings.conf_dir is None:
        parts.append("MLPLATFORM_CONF_DIR is not set, so these are the packaged ones alone")
    else:
        parts.append(f"one of your own is a file {settings.conf_dir / 'experiment'}/<name>.yaml")
    raise ConfigError("; ".join(parts))


def options(group: str, settings: Settings | None = None) -> tuple[str, ...]:
    """Return the options of a configuration group, sorted; without the packaged examples if those are not wanted."""
    settings = settings or Settings.from_env()
    folders = settings.conf_dirs
    if group in EXAMPLES and not settings.has_examples:
        folders = tuple(folder for folder in folders if folder != PACKAGED_CONF)
    paths = (path for folder in folders for path in (folder / group).glob("*.yaml"))
    # Editors leave hidden files beside the one they have open.
    return tuple(sorted({path.stem for path in paths if not path.name.startswith(".")}))


def load_experiment(name: str, overrides: Sequence[str] = (), settings: Settings | None = None) -> ExperimentConfig:
    """Compose and validate the experiment `name`.

    Parameters:
        name: file name, without suffix, under `conf/experiment/`.
        overrides: Hydra overrides, for example `["horizon=48", "model=nlinear_v1"]`.
        settings: where configuration is looked up; default: from the environment.

    Raises:
        ConfigError: if the experiment is unknown or any part of it cannot be used.
    """
    settings = settings or Settings.from_env()
    require_experiments((name,), settings)
    return _experiment(name, compose(name, overrides, settings))


def explain_experiment(name: str, settings: Settings | None = None) -> dict[str, Any]:
    """Return the values of an experiment that YAML leaves open and its data's frequency fills in, in the shape of YAML.

    Raises:
        ConfigError: as `load_experiment` does.
    """
    settings = settings or Settings.from_env()
    load_experiment(name, settings=settings)
    return derived_values(compose(name, (), settings))


def load_all_experiments(
    settings: Settings | None = None,
) -> tuple[dict[str, ExperimentConfig], dict[str, ConfigError]]:
    """Load every experiment in the configuration folders.

    Returns:
        The sound ones by name, and of the others, by file name without suffix, what is wrong with them.

    Raises:
        ConfigError: if a configuration folder does not exist, because then nothing would be what it seems.
    """
    settings = settings or Settings.from_env()
    state = state_of_files(settings)
    return _load_all(
        experiment_names(settings), lambda name: _experiment(name, compose(name, (), settings, state)), EXPERIMENT
    )


def load_all_datasets(settings: Settings | None = None) -> tuple[dict[str, DatasetConfig], dict[str, ConfigError]]:
    """Load every dataset in the configuration folders, also those that no experiment uses.

    Returns:
        The sound ones by name, and of the others, by file name without suffix, what is wrong with them.

    Raises:
        ConfigError: as `load_all_experiments` does.
    """
    return _load_group("dataset", load_dataset, settings)


def load_all_servings(settings: Settings | None = None) -> tuple[dict[str, ServingConfig], dict[str, ConfigError]]:
    """Load every option of the group `serving`, also those that no server uses.

    Returns:
        The sound ones by name, and of the others, by file name without suffix, what is wrong with them.

    Raises:
        ConfigError: as `load_all_experiments` does.
    """
    return _load_group("serving", load_serving, settings)


def _load_group(
    group: str, load: Callable[[str, Settings], Loaded], settings: Settings | None
) -> tuple[dict[str, Loaded], dict[str, ConfigError]]:
    settings = settings or Settings.from_env()
    require_folders(settings)
    return _load_all(options(group, settings), lambda name: load(name, settings), group)


def _load_all(
    names: Iterable[str], load: Callable[[str], Loaded], kind: str
) -> tuple[dict[str, Loaded], dict[str, ConfigError]]:
    loaded: dict[str, Loaded] = {}
    broken: dict[str, ConfigError] = {}
    for name in names:
        try:
            loaded[name] = load(name)
        except ConfigError as error:
            broken[name] = error
        except Exception as error:  # whatever one file does, the others are loaded
            reason = f"{kind} {name!r} cannot be loaded: {type(error).__name__}: {error}"
            broken[name] = ConfigError(reason)
            broken[name].__cause__ = error
    return loaded, broken


def _experiment(name: str, values: Any) -> ExperimentConfig:
    """Check composed values, and that they are those of the file that was asked for."""
    if isinstance(values, dict) and EXPERIMENT in values:
        misplaced = _misplaced(values[EXPERIMENT])
        raise ConfigError(f"experiment {name!r}: {misplaced}", (misplaced,))
    own = values.get("name", name) if isinstance(values, dict) else name
    other_name = () if own == name else (f"name is {own!r}, but must equal the file's name",)
    try:
        config = parse_experiment(values, name)
    except ConfigError as error:
        raise ConfigError.of(f"experiment {name!r}", [*error.mistakes, *other_name]) from error
    if other_name:
        raise ConfigError(f"experiment {name!r}: {other_name[0]}", other_name)
    return config


def _misplaced(found: Any) -> str:
    """Say why what a file holds was composed below its group's name instead of being the experiment."""
    if isinstance(found, dict) and found.keys() & ExperimentConfig.model_fields.keys():
        return f"{', '.join(map(repr, found))} stand below {EXPERIMENT!r}: begin the file with the line {WHOLE!r}"
    held = repr(found) if found else "nothing"
    return f"the file holds {held}, but must hold the line {WHOLE!r} and below it keys such as name, dataset, targets"


def load_dataset(name: str, settings: Settings | None = None) -> DatasetConfig:
    """Read and validate the dataset `name` on its own, outside of any experiment.

    Raises:
        ConfigError: if the dataset is unknown or its file cannot be used.
    """
    config = _file("dataset", name, DatasetConfig, settings or Settings.from_env())
    other_name = f"dataset {name!r}: name is {config.name!r}, but must equal the file's name"
    mistakes = [*([] if config.name == name else [other_name]), *source_mistakes(config)]
    if mistakes:
        raise ConfigError("\n".join(mistakes), mistakes)
    return config


def load_serving(name: str = "default", settings: Settings | None = None) -> ServingConfig:
    """Read and validate the option `name` of the group `serving`: the deployments on Ray Serve.

    Raises:
        ConfigError: if there is no such option or its file cannot be used.
    """
    return _file("serving", name, ServingConfig, settings or Settings.from_env())


def load_alerts(name: str = "default", settings: Settings | None = None) -> AlertsConfig:
    """Read and validate the option `name` of the group `alerts`: who is told of what.

    Raises:
        ConfigError: if there is no such option or its file cannot be used.
    """
    return _file("alerts", name, AlertsConfig, settings or Settings.from_env())


def _file(group: str, name: str, model: type[Single], settings: Settings) -> Single:
    """Read and validate a file of a group on its own."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    paths = [path for folder in settings.conf_dirs if (path := folder / group / f"{name}.yaml").is_file()]
    if not paths:
        raise ConfigError(f"unknown {group} {name!r}; known: {', '.join(options(group, settings))}")
    try:
        return model.model_validate(OmegaConf.to_container(OmegaConf.load(paths[0]), resolve=True))
    except ValidationError as error:
        raise ConfigError.of(f"{group} {name!r}", lines_of(error, model)) from error
    except (OmegaConfBaseException, YAMLError, OSError, UnicodeError) as error:
        raise ConfigError(f"{group} {name!r}: {paths[0]} cannot be read: {error}") from error
