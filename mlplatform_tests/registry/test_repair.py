"""Repair: what a writer that was cut off left behind is put right at once, and damage is told."""

from __future__ import annotations

import mlflow
import pytest

from mlplatform.registry.pairs import ROLES, PairNotFoundError
from mlplatform.testing.tiny_pair import NAME, TinyRegistry, tiny_forecaster


def cut_off_registration(tiny: TinyRegistry, monkeypatch: pytest.MonkeyPatch, method: str, count: int) -> None:
    """Start a registration that ends right before its n-th call of a method."""
    write, calls = getattr(mlflow.MlflowClient, method), []

    def counted(*args: object, **kwargs: object) -> object:
        calls.append(args)
        if len(calls) == count:
            raise KeyboardInterrupt
        return write(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, method, counted)
        with pytest.raises(KeyboardInterrupt):
            tiny.register(tiny_forecaster())


def test_a_registry_in_order_is_left_alone(tiny: TinyRegistry) -> None:
    tiny.store.promote(NAME, 1, "test", "a test")
    history = tiny.store.history(NAME)
    report = tiny.store.repair(NAME)
    assert (report.repaired, report.damaged, report.latest) == ((), (), 3)
    assert tiny.store.history(NAME) == history


def test_numbers_out_of_step_are_padded_and_marked(tiny: TinyRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_off_registration(tiny, monkeypatch, "create_model_version", 3)
    report = tiny.store.repair(NAME)
    assert report.repaired == (
        f"marked {NAME}_preprocessor version 4 as incomplete",
        f"marked {NAME}_forecaster version 4 as incomplete",
        f"created {NAME}_model version 4 as a placeholder",
    )
    assert report.latest == 3
    for role in ROLES:
        assert tiny.store.client.get_model_version(f"{NAME}_{role}", "4").tags["incomplete"] == "true"
    with pytest.raises(PairNotFoundError, match="version 4"):
        tiny.store.resolve(NAME, 4)
    assert tiny.store.repair(NAME).repaired == ()
    assert tiny.register(tiny_forecaster()).version == 5


def test_a_registration_without_its_last_step_becomes_staging(
    tiny: TinyRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off_registration(tiny, monkeypatch, "set_registered_model_alias", 1)
    assert tiny.store.resolve(NAME, "latest").version == 4
    assert tiny.store.resolve(NAME, "staging").version == 3
    report = tiny.store.repair(NAME)
    assert "moved 'staging' to version 4" in report.repaired
    assert tiny.store.resolve(NAME, "staging").version == 4
    assert tiny.store.history(NAME)[-1].who == "repair"


def test_staging_that_was_moved_on_purpose_is_left_alone(tiny: TinyRegistry) -> None:
    tiny.store.set_alias(NAME, "staging", 2, who="ann", why="3 is odd")
    assert tiny.store.repair(NAME).repaired == ()
    assert tiny.store.resolve(NAME, "staging").version == 2


def test_a_mirror_without_a_version_does_not_stop_a_rollback(tiny: TinyRegistry) -> None:
    for version in (1, 2):
        tiny.store.promote(NAME, version, "test", "a test")
    tiny.store.client.delete_model_version(f"{NAME}_preprocessor", "2")
    assert tiny.store.rollback(NAME, who="test", why="2 is broken").version == 1
    assert int(tiny.store.client.get_registered_model(f"{NAME}_forecaster").aliases["previous"]) == 2


def test_damage_is_told_with_the_aliases_in_front_of_it(tiny: TinyRegistry) -> None:
    tiny.store.promote(NAME, 1, "test", "a test")
    tiny.store.client.delete_model_version(f"{NAME}_preprocessor", "1")
    tiny.store.client.set_model_version_tag(f"{NAME}_forecaster", "2", "pair_id", "stranger")
    by_hand = tiny.store.client.create_model_version(f"{NAME}_model", "somewhere")
    tiny.store.client.set_registered_model_alias(f"{NAME}_model", "canary", by_hand.version)
    report = tiny.store.repair(NAME)
    first, second, third = report.damaged
    assert first.startswith(f"version 1 (behind production): version 1 of '{NAME}_preprocessor'")
    assert second.startswith(f"version 2: version 2 of '{NAME}_forecaster' has pair id 'stranger'")
    assert third.startswith("version 4 (behind canary): no pair")
    assert report.latest == 3
