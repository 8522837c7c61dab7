"""All mistakes of experiment, dataset and serving files in one listing: `python -m mlplatform.config check`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mlplatform.config.base import ConfigError
from mlplatform.config.experiment import ExperimentConfig
from mlplatform.config.loading import load_all_datasets, load_all_experiments, load_all_servings, load_experiment
from mlplatform.config.versions import VERSION_GROUPS, apply_versions
from mlplatform.plugins import ALL, failed_modules, outside_modules
from mlplatform.settings import Settings


@dataclass(frozen=True)
class Listing:
    """What is wrong with the configuration of an installation.

    Attributes:
        experiments, datasets, servings: numbers of files that were looked at.
        mistakes: file (or for plug-ins what names them) -> what is wrong, one text each.
    """

    experiments: int = 0
    datasets: int = 0
    servings: int = 0
    mistakes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def to_text(self) -> str:
        """Return the listing for a person."""
        looked_at = f"{self.experiments} experiments, {self.datasets} datasets and {self.servings} ways of serving"
        if not self.mistakes:
            return f"{looked_at}: no mistakes"
        lines = []
        for place, mistakes in self.mistakes.items():
            lines += [place, *(f"  - {mistake}".replace("\n", "\n    ") for mistake in mistakes), ""]
        count = sum(map(len, self.mistakes.values()))
        return "\n".join([*lines, f"{looked_at}: {count} mistake{'s' * (count > 1)}"])

    def to_json(self) -> str:
        """Return the listing for a program."""
        return json.dumps(
            {
                "experiments": self.experiments,
                "datasets": self.datasets,
                "servings": self.servings,
                "mistakes": self.mistakes,
            },
            indent=1,
        )


def check_all(settings: Settings | None = None) -> Listing:
    """Load every experiment and dataset, and collect what is wrong; never raises for what stands in a file."""
    settings = settings or Settings.from_env()
    mistakes = dict(_plugin_mistakes())
    try:
        experiments, broken = load_all_experiments(settings)
        datasets, broken_datasets = load_all_datasets(settings)
        servings, broken_servings = load_all_servings(settings)
    except ConfigError as error:
        return Listing(mistakes={**mistakes, "configuration folders": error.mistakes})
    found = {name: error.mistakes for name, error in broken.items()}
    for name, config in experiments.items():
        if refused := tuple(_allowed_mistakes(config, settings)):
            found[name] = refused
    mistakes |= {_file("experiment", name, settings): found[name] for name in sorted(found)}
    mistakes |= {_file("dataset", name, settings): error.mistakes for name, error in broken_datasets.items()}
    mistakes |= {_file("serving", name, settings): error.mistakes for name, error in broken_servings.items()}
    if settings.serving_config not in {*servings, *broken_servings}:
        known = ", ".join(sorted({*servings, *broken_servings}))
        mistakes["MLPLATFORM_SERVING_CONFIG"] = (f"unknown serving {settings.serving_config!r}; known: {known}",)
    return Listing(
        len(experiments) + len(broken),
        len(datasets) + len(broken_datasets),
        len(servings) + len(broken_servings),
        mistakes,
    )


def _plugin_mistakes() -> Iterator[tuple[str, tuple[str, ...]]]:
    named_by = outside_modules()
    for module, reason in failed_modules().items():
        yield f"plug-in module {module}, named by {named_by[module]}", (f"cannot be imported: {reason}",)
    # Only a module from outside can dispute a name; asking all registries loads what configuration does without.
    disputes = tuple(dispute for registry in (ALL if named_by else ()) for dispute in registry.disputes())
    if disputes:
        yield "plug-ins", disputes


def _allowed_mistakes(config: ExperimentConfig, settings: Settings) -> Iterator[str]:
    """Yield what is wrong with an experiment under the other versions that a training run may ask it for."""
    for key, group in VERSION_GROUPS.items():
        for version in getattr(config.allowed, group):
            try:
                load_experiment(config.name, apply_versions(config.name, {key: version}, settings), settings)
            except ConfigError as error:
                for mistake in error.mistakes:
                    yield f"allowed.{group} names {version!r}: {mistake}"


def _file(group: str, name: str, settings: Settings) -> str:
    """Return the file that an option is read from: the one in the most specific folder."""
    paths = [folder / group / f"{name}.yaml" for folder in settings.conf_dirs]
    return str(next((path for path in paths if path.exists()), paths[0]))
