"""Version numbers: the three registered models of a pair stay in step, whatever was cut off before."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from typing import TYPE_CHECKING

from mlplatform.registry.pairs.info import INCOMPLETE, ROLES, is_complete, registered_model

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

LEFTOVER = "Left by a registration that was cut off; readers never see it."
PAGE = 50


def ensure_models(client: MlflowClient, name: str) -> None:
    """Create the three registered models where they do not exist."""
    from mlflow.exceptions import MlflowException

    for role in ROLES:
        try:
            client.create_registered_model(registered_model(name, role))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


def newest_first(client: MlflowClient, model: str) -> Iterator[ModelVersion]:
    """Yield the versions of a registered model, newest first, reading a page at a time."""
    token = None
    while True:
        page = client.search_model_versions(
            f"name='{model}'", max_results=PAGE, order_by=["version_number DESC"], page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


def last_version(client: MlflowClient, model: str) -> int:
    """Return the highest version number of a registered model; 0 without versions."""
    return next((int(version.version) for version in newest_first(client, model)), 0)


def align(client: MlflowClient, name: str) -> list[str]:
    """Bring the three models to the same last number and mark leftovers; return what was done.

    Only versions after the newest complete pair are looked at: everything before was aligned by the registration of
    that pair.
    """
    models = [registered_model(name, role) for role in ROLES]
    committed = next((int(found.version) for found in newest_first(client, models[-1]) if is_complete(found)), 0)
    last = {model: last_version(client, model) for model in models}
    ahead = max(models, key=lambda model: last[model])
    done = []
    for model in models:
        for found in takewhile(lambda version: int(version.version) > committed, newest_first(client, model)):
            if found.tags.get(INCOMPLETE) != "true":
                mark_incomplete(client, model, int(found.version))
                done.append(f"marked {model} version {found.version} as incomplete")
        for number in range(last[model] + 1, last[ahead] + 1):
            source = client.get_model_version(ahead, str(last[ahead])).source or ""
            client.create_model_version(model, source, tags={INCOMPLETE: "true"}, description=LEFTOVER)
            done.append(f"created {model} version {number} as a placeholder")
    return done


def mark_incomplete(client: MlflowClient, model: str, number: int) -> None:
    """Mark a version as a leftover that readers pass over."""
    client.set_model_version_tag(model, str(number), INCOMPLETE, "true")
