"""Pairs in the MLflow registry: registered under one version number, switched by one alias, verified when read.

A pair is `<name>_preprocessor`, `<name>_model` and `<name>_forecaster` (both in one pyfunc) under the same version
number. The version of `<name>_model` is created last and carries all a reader needs: the pair id and the digests. Its
pair id is written last of all and is the commit point: without it the three are leftovers of a run that was cut off,
which the next registration steps over. The alias on `<name>_model` decides what is in production; the aliases on the
other two are mirrors for people, repaired by the next write when a cut-off run left them behind.
"""

from __future__ import annotations

import datetime as dt
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlplatform.models.base import save_model
from mlplatform.registry.digests import folder_digest
from mlplatform.registry.forecaster import CONTRACT_FILE, Contract, Forecaster
from mlplatform.registry.tracking import client_for, open_tracking
from mlplatform.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

STAGING, PRODUCTION, PREVIOUS = "staging", "production", "previous"
LATEST = "latest"
ROLES = ("preprocessor", "forecaster", "model")
CODE = Path(__file__).parent / "pyfunc_code"
# Someone else may take the next number between looking and creating; each attempt looks again.
REGISTER_ATTEMPTS = 5
# MLflow keeps version numbers in a 32-bit column; databases raise on larger ones.
LARGEST_VERSION = 2**31 - 1


class PairNotFoundError(LookupError):
    """No such pair, version or alias."""


class PairIntegrityError(RuntimeError):
    """A registered pair whose parts do not belong together or were changed."""


@dataclass(frozen=True)
class PairInfo:
    """A registered pair.

    Attributes:
        name: stem of the registered models' names.
        version: the version number the three models share.
        pair_id: unique id of this pair.
        run_id: MLflow run that trained it.
        preprocessor_digest, model_digest: SHA-256 of the artifact folders.
        tags: all tags of the model version.
    """

    name: str
    version: int
    pair_id: str
    run_id: str
    contract: Contract
    preprocessor_digest: str
    model_digest: str
    created_at: dt.datetime
    tags: Mapping[str, str]

    @property
    def promoted_at(self) -> dt.datetime | None:
        """When the pair last became the production pair."""
        text = self.tags.get("promoted_at")
        return dt.datetime.fromisoformat(text) if text else None


class PairStore:
    """Registers, resolves, verifies and aliases pairs."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._client: MlflowClient | None = None

    @property
    def client(self) -> MlflowClient:
        """The MLflow client, connected on first use."""
        if self._client is None:
            self._client = client_for(self.settings)
        return self._client

    def register(
        self, name: str, forecaster: Forecaster, family: str, run_id: str, tags: Mapping[str, str] | None = None
    ) -> PairInfo:
        """Log and register a pair, and point `staging` at it.

        Parameters:
            name: stem of the registered models' names.
            family: model family, under which the model can be loaded again.
            run_id: MLflow run the artifacts belong to; it must exist.
            tags: further tags of the model version.
        """
        pair_id = uuid.uuid4().hex
        with tempfile.TemporaryDirectory() as folder:
            folders = _write_pair(Path(folder), forecaster, family)
            digests = {role: folder_digest(path) for role, path in folders.items()}
            logged = {
                "preprocessor": _log(self.settings, "preprocessor", run_id, {"preprocessor": folders["preprocessor"]}),
                "forecaster": _log(self.settings, "forecaster", run_id, folders),
                "model": _log(self.settings, "model", run_id, {"model": folders["model"]}),
            }
        for role in ROLES:
            self._ensure_model(f"{name}_{role}")
        version = self._create_versions(
            name,
            run_id,
            logged,
            {
                **(tags or {}),
                "pair_id": pair_id,
                "preprocessor_digest": digests["preprocessor"],
                "model_digest": digests["model"],
                "contract": forecaster.contract.to_json(),
            },
        )
        self.set_alias(name, STAGING, version)
        return self.resolve(name, str(version))

    def resolve(self, name: str, ref: str = PRODUCTION) -> PairInfo:
        """Return the pair that an alias, a version number or `latest` (the newest complete pair) stands for.

        Raises:
            PairNotFoundError: if there is none.
            PairIntegrityError: if the version's partners do not belong to it.
        """
        found = self._find(name, ref)
        if found is None:
            raise PairNotFoundError(f"no pair {name!r} with {_wording(ref)}; run the job train_{name} first")
        info = _pair_info(name, found)
        self._check_partner(info)
        return info

    def of_run(self, name: str, run_id: str) -> PairInfo:
        """Return the pair that an MLflow run registered, the newest if there are several.

        Raises:
            PairNotFoundError: if the run registered none.
        """
        versions = self.client.search_model_versions(
            f"name='{name}_model' and run_id='{run_id}'", order_by=["version_number DESC"]
        )
        for version in versions:
            if _is_complete(version):
                return self.resolve(name, str(version.version))
        raise PairNotFoundError(
            f"MLflow run {run_id} registered no pair {name!r}; materialise {name}/registered_pair first"
        )

    def load(self, info: PairInfo) -> Forecaster:
        """Read a pair's artifacts, verifying their digests before anything is deserialised.

        Raises:
            PairIntegrityError: if an artifact is missing or was changed.
        """
        preprocessor = self._artifact(info, "preprocessor", info.preprocessor_digest)
        model = self._artifact(info, "model", info.model_digest)
        return Forecaster.load(preprocessor, model)

    def verify(self, info: PairInfo) -> None:
        """Check partners and digests without loading anything.

        Raises:
            PairIntegrityError: as `resolve` and `load` do.
        """
        self._check_partner(info)
        self._artifact(info, "preprocessor", info.preprocessor_digest)
        self._artifact(info, "model", info.model_digest)

    def promote(self, info: PairInfo) -> PairInfo:
        """Make a pair the production pair; the one it replaces becomes `previous`."""
        champion = self.find(info.name, PRODUCTION)
        if champion is not None and champion.version != info.version:
            self.set_alias(info.name, PREVIOUS, champion.version)
        now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        self.client.set_model_version_tag(f"{info.name}_model", str(info.version), "promoted_at", now)
        self.set_alias(info.name, PRODUCTION, info.version)
        return self.resolve(info.name, str(info.version))

    def rollback(self, name: str) -> PairInfo:
        """Make the `previous` pair the production pair again; the two trade places.

        Raises:
            PairNotFoundError: if there is no previous pair, or it is the production pair itself.
            PairIntegrityError: if the previous pair was changed after registration.
        """
        previous = self.resolve(name, PREVIOUS)
        champion = self.find(name, PRODUCTION)
        if champion is not None and champion.version == previous.version:
            raise PairNotFoundError(
                f"the aliases {PREVIOUS!r} and {PRODUCTION!r} of {name!r} are both on version {previous.version}, so "
                f"there is nothing to roll back to; set {PREVIOUS!r} on {name}_model to the version you want"
            )
        self.verify(previous)
        return self.promote(previous)

    def find(self, name: str, ref: str) -> PairInfo | None:
        """Return the pair as `resolve` does, or None if there is none."""
        try:
            return self.resolve(name, ref)
        except PairNotFoundError:
            return None

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Point an alias at a version: the model first, which commits it, then the mirrors."""
        self.client.set_registered_model_alias(f"{name}_model", alias, str(version))
        self._repair_mirrors(name)

    def _repair_mirrors(self, name: str) -> None:
        """Bring all mirrors in line with the model's aliases, those that an earlier run left behind included."""
        committed = self.client.get_registered_model(f"{name}_model").aliases
        for role in ("preprocessor", "forecaster"):
            mirrored = self.client.get_registered_model(f"{name}_{role}").aliases
            for alias in (STAGING, PRODUCTION, PREVIOUS):
                if alias in committed and mirrored.get(alias) != committed[alias]:
                    self.client.set_registered_model_alias(f"{name}_{role}", alias, str(committed[alias]))

    def _ensure_model(self, name: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _create_versions(self, name: str, run_id: str, logged: Mapping[str, Any], tags: Mapping[str, str]) -> int:
        """Create the three versions under one number and return it; the model's comes last."""
        for _ in range(REGISTER_ATTEMPTS):
            number = 1 + max(self._last_version(f"{name}_{role}") for role in ROLES)
            if all(self._create_version(f"{name}_{role}", run_id, logged[role], tags, number) for role in ROLES):
                return number
        raise RuntimeError(
            f"pair {name!r} could not be registered in {REGISTER_ATTEMPTS} attempts, because other runs kept taking "
            "the next version number; run the registration again"
        )

    def _create_version(self, name: str, run_id: str, logged: Any, tags: Mapping[str, str], number: int) -> bool:
        """Create version `number` of one model, padding skipped numbers; return whether the number was still free."""
        while (last := self._last_version(name)) < number - 1:
            self.client.create_model_version(
                name, logged.model_uri, run_id, tags={"incomplete": "true", "padding_for": str(number)}
            )
            if self._last_version(name) == last:
                break
        if self._last_version(name) != number - 1:
            return False
        others = {key: value for key, value in tags.items() if key != "pair_id"}
        created = self.client.create_model_version(
            name, logged.model_uri, run_id, tags=others, model_id=logged.model_id
        )
        if int(created.version) != number:
            self.client.set_model_version_tag(name, created.version, "incomplete", "true")
            return False
        # Only now is it known that the number was not taken by another run in between.
        self.client.set_model_version_tag(name, created.version, "pair_id", tags["pair_id"])
        return True

    def _last_version(self, name: str) -> int:
        versions = self.client.search_model_versions(f"name='{name}'", max_results=1, order_by=["version_number DESC"])
        return int(versions[0].version) if versions else 0

    def _find(self, name: str, ref: str) -> ModelVersion | None:
        from mlflow.exceptions import MlflowException

        model = f"{name}_model"
        if ref == LATEST:
            versions = self.client.search_model_versions(f"name='{model}'", order_by=["version_number DESC"])
            return next((version for version in versions if _is_complete(version)), None)
        if ref.isdecimal() and int(ref) > LARGEST_VERSION:
            return None
        try:
            if ref.isdecimal():
                found = self.client.get_model_version(model, ref)
            else:
                found = self.client.get_model_version_by_alias(model, ref)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise
        if not _is_complete(found):
            return None
        return found

    def _check_partner(self, info: PairInfo) -> None:
        from mlflow.exceptions import MlflowException

        partner = f"{info.name}_preprocessor"
        try:
            found = self.client.get_model_version(partner, str(info.version)).tags.get("pair_id")
        except MlflowException as error:
            raise PairIntegrityError(
                f"version {info.version} of {partner!r}, the partner of {info.name}_model, cannot be read: {error}"
            ) from error
        if found != info.pair_id:
            raise PairIntegrityError(
                f"version {info.version} of {partner!r} has pair id {found!r}, but {info.name}_model has "
                f"{info.pair_id!r}: they are not a pair. Promote or roll back to a complete version"
            )

    def _artifact(self, info: PairInfo, role: str, expected: str) -> Path:
        import mlflow
        from mlflow.exceptions import MlflowException

        open_tracking(self.settings)
        model = f"{info.name}_{role}"
        try:
            uri = self.client.get_model_version_download_uri(model, str(info.version))
            folder = Path(mlflow.artifacts.download_artifacts(f"{uri}/artifacts/{role}"))
        except (MlflowException, OSError) as error:
            raise PairIntegrityError(
                f"the artifacts of {model} version {info.version} cannot be read: {error}"
            ) from error
        found = folder_digest(folder)
        if found != expected:
            raise PairIntegrityError(
                f"the artifacts of {model} version {info.version} have SHA-256 {found}, but {expected} was registered: "
                "they were changed after registration. Roll back to another version or train again"
            )
        return folder


def _write_pair(folder: Path, forecaster: Forecaster, family: str) -> dict[str, Path]:
    """Write the two artifact folders, each with the contract."""
    preprocessor, model = folder / "preprocessor", folder / "model"
    preprocessor.mkdir()
    forecaster.preprocessor.save(preprocessor)
    save_model(forecaster.model, family, model)
    for path in (preprocessor, model):
        (path / CONTRACT_FILE).write_text(forecaster.contract.to_json())
    return {"preprocessor": preprocessor, "model": model}


def _log(settings: Settings, role: str, run_id: str, artifacts: Mapping[str, Path]) -> Any:
    """Log one pyfunc to the run and return MLflow's description of it."""
    import mlflow

    open_tracking(settings)
    with tempfile.TemporaryDirectory() as folder:
        # MLflow names the stored code after the file, so every role gets a file of its own.
        code = shutil.copy(CODE / f"{role}.py", Path(folder) / f"{role}.py")
        with _run(run_id), warnings.catch_warnings():
            # The contract says what a pair reads; that MLflow has no signature of it is no news in every training run.
            warnings.filterwarnings("ignore", message=".*Failed to infer signature from type hint")
            warnings.filterwarnings("ignore", message=".*Type hint used in the model's predict function")
            return mlflow.pyfunc.log_model(
                name=role,
                python_model=str(code),
                artifacts={key: str(path) for key, path in artifacts.items()},
                # Spelled out: MLflow would otherwise start a process to find out by importing everything.
                pip_requirements=[f"mlplatform=={installed_version('mlplatform')}"],
            )


def _run(run_id: str) -> Any:
    import contextlib

    import mlflow

    active = mlflow.active_run()
    if active is not None and active.info.run_id == run_id:
        return contextlib.nullcontext()
    # MLflow refuses to reopen a run of another experiment than the one this process worked on last.
    mlflow.set_experiment(experiment_id=mlflow.get_run(run_id).info.experiment_id)
    return mlflow.start_run(run_id=run_id, nested=active is not None)


def _is_complete(version: ModelVersion) -> bool:
    return "pair_id" in version.tags and version.tags.get("incomplete") != "true"


def _pair_info(name: str, version: ModelVersion) -> PairInfo:
    tags = dict(version.tags)
    return PairInfo(
        name=name,
        version=int(version.version),
        pair_id=tags["pair_id"],
        run_id=version.run_id or "",
        contract=Contract.from_json(tags["contract"]),
        preprocessor_digest=tags["preprocessor_digest"],
        model_digest=tags["model_digest"],
        created_at=dt.datetime.fromtimestamp(version.creation_timestamp / 1000, dt.UTC),
        tags=tags,
    )


def _wording(ref: str) -> str:
    if ref == LATEST:
        return "any complete version"
    return f"version {ref}" if ref.isdecimal() else f"the alias {ref!r}"
