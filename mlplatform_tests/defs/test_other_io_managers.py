"""`build_defs(resources=...)` with another IO manager: one that is complete works, and one that is not is refused."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
from dagster import (
    AssetKey,
    AssetSelection,
    Definitions,
    InputContext,
    IOManager,
    OutputContext,
    define_asset_job,
    io_manager,
)

from mlplatform.definitions import build_defs
from mlplatform.defs.io_managers import ValueReader
from mlplatform.defs.keys import FOLD_PREPROCESSOR
from mlplatform.defs.resources import PlatformResource
from mlplatform.registry.pairs import PRODUCTION
from mlplatform.testing.yard import EXPERIMENT, TRAIN, Yard, checks_of
from mlplatform_tests.defs.test_assets import failure


class Plain(IOManager):
    """Offers what Dagster asks for and no more."""

    def handle_output(self, context: OutputContext, obj: Any) -> None:
        raise NotImplementedError

    def load_input(self, context: InputContext) -> Any:
        raise NotImplementedError


class Memory(IOManager):
    """Keeps values as they are, by key and partition."""

    def __init__(self) -> None:
        self.values: dict[tuple[AssetKey, str | None], Any] = {}

    def handle_output(self, context: OutputContext, obj: Any) -> None:
        values = obj if context.has_asset_partitions else {None: obj}
        self.values |= {(context.asset_key, partition): value for partition, value in values.items()}

    def load_input(self, context: InputContext) -> Any:
        if not context.has_asset_partitions:
            return self.values[context.asset_key, None]
        return {partition: self.values[context.asset_key, partition] for partition in context.asset_partition_keys}

    def has(self, key: AssetKey, partition: str | None) -> bool:
        return (key, partition) in self.values

    def read(self, key: AssetKey, partition: str | None, kind: Any) -> Any:
        value = self.values[key, partition]
        assert isinstance(value, kind)
        return value


def definitions(yard: Yard, manager: Any) -> Definitions:
    resources = {"platform": PlatformResource(environment=yard.environ), "io_manager": manager}
    return build_defs(experiments=[yard.config], resources=resources)


def test_a_whole_training_runs_on_values_in_memory(yard: Yard) -> None:
    shutil.rmtree(yard.settings.assets_dir)
    memory = Memory()
    assert isinstance(memory, ValueReader)
    job = definitions(yard, memory).resolve_job_def(TRAIN)
    result = job.execute_in_process(instance=yard.instance)
    assert all(check.passed for check in checks_of(result).values())
    assert checks_of(result)["leakage"].metadata["folds"].value == "fold_0, fold_1"
    assert yard.pairs.resolve(EXPERIMENT, PRODUCTION).version == 1
    assert {key.path[-1] for key, _ in memory.values} == {"cv_folds", "fold_preprocessor", "tuned_model"}
    assert not (yard.settings.assets_dir / EXPERIMENT / "tuned_model").exists()


def test_one_that_checks_cannot_read_from_is_refused_at_once(yard: Yard) -> None:
    with pytest.raises(TypeError, match=r"Plain, which has no has and no read; .*ValueReader: add them"):
        definitions(yard, Plain())


def test_one_that_is_made_later_is_refused_by_the_check_that_reads(yard: Yard) -> None:
    @io_manager
    def later() -> Plain:
        return Plain()

    selection = AssetSelection.checks_for_assets(AssetKey([EXPERIMENT, FOLD_PREPROCESSOR]))
    only_checks = Definitions(jobs=[define_asset_job("only_checks", selection=selection)])
    job = Definitions.merge(definitions(yard, later), only_checks).resolve_job_def("only_checks")
    result = job.execute_in_process(instance=yard.instance, raise_on_error=False)
    assert "ValueReader: add them" in failure(result)
