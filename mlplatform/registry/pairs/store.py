"""The registry as the platform uses it: register, resolve, load, promote, roll back, repair."""

from __future__ import annotations

import contextlib
import json
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from mlplatform.registry.forecaster import Forecaster
from mlplatform.registry.local_reader import local_reader
from mlplatform.registry.pairs import card as cards
from mlplatform.registry.pairs.aliases import AliasChange, Aliases
from mlplatform.registry.pairs.artifacts import (
    CARD,
    Fetch,
    fetch_from_registry,
    load_pair,
    log_roles,
    state_digests,
    stored_example,
    verified_copy,
    write_folders,
)
from mlplatform.registry.pairs.evidence import Evidence, tag_name
from mlplatform.registry.pairs.example import differences
from mlplatform.registry.pairs.info import (
    LATEST,
    PAIR_ID,
    PREVIOUS,
    PRODUCTION,
    ROLES,
    STAGING,
    PairConflictError,
    PairInfo,
    PairNotFoundError,
    is_complete,
    registered_model,
)
from mlplatform.registry.pairs.lock import Ticket, only_writer
from mlplatform.registry.pairs.numbering import ensure_models, newest_first
from mlplatform.registry.pairs.registration import checked_signature, create_pair
from mlplatform.registry.pairs.repair import RepairReport, repair_pairs
from mlplatform.registry.pairs.resolution import absence, check_partners, find_pair, pair_of_run, refusal
from mlplatform.registry.pairs.signed import Subject, require_unchanged
from mlplatform.registry.signing import SIGNATURE, Signer
from mlplatform.registry.tracking import client_for, mlflow_error, require_answer
from mlplatform.settings import Settings, sqlite_file

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient

    from mlplatform.datamodule import Float32


class PairStore:
    """Registers, resolves, verifies and aliases pairs.

    Methods that change the registry take a name's lock, so that there is one writer at a time, and say who asked and
    why. Methods that read take no lock.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._client: MlflowClient | None = None

    @classmethod
    def for_looking(cls, settings: Settings) -> PairStore:
        """Return a store that only finds and describes pairs, without the import of MLflow where that can be spared."""
        store = cls(settings)
        # It offers of a client what looking asks for.
        store._client = cast("MlflowClient | None", local_reader(settings))
        return store

    @classmethod
    def of_existing(cls, settings: Settings) -> PairStore:
        """Return a store that makes no registry where there is none: it finds nothing then.

        Raises:
            RegistryAwayError: if a tracking server does not answer.
        """
        require_answer(settings)
        file = sqlite_file(settings.mlflow_tracking_uri)
        return cls.for_looking(settings) if file is not None and not file.exists() else cls(settings)

    @property
    def client(self) -> MlflowClient:
        """The MLflow client, connected on first use."""
        if self._client is None:
            self._client = client_for(self.settings)
        return self._client

    def register(
        self,
        name: str,
        forecaster: Forecaster,
        family: str,
        run_id: str,
        *,
        example: pd.DataFrame,
        tags: Mapping[str, str] | None = None,
        who: str = "registration",
    ) -> PairInfo:
        """Log and register a pair, signed if there is a key to sign with, and point `staging` at it.

        Parameters:
            name: stem of the registered models' names.
            family: model family, under which the model can be loaded again.
            run_id: MLflow run the artifacts belong to; it must exist.
            example: raw rows for a prediction that is stored with its answer; see `example_rows`.
            tags: further tags of the three versions.

        Raises:
            PairIntegrityError: if the pair does not survive being stored.
            SigningKeyError: if a key to sign with is configured and cannot be used.
        """
        signer = Signer(self.settings) if self.settings.signing_key else None
        pair_id = uuid.uuid4().hex
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place, "pair")
            folder.mkdir()
            write_folders(folder, forecaster, family, example)
            digests = state_digests(folder)
            card = cards.build_card(
                self.client, name, pair_id, family, forecaster.contract, run_id, digests, Path(place)
            )
            card.write(folder / CARD)
            logged = log_roles(self.settings, run_id, folder, forecaster, example)
        ensure_models(self.client, name)
        contract, why = forecaster.contract.to_json(), f"registered by MLflow run {run_id}"
        signature = None
        if signer:
            files = {role: logged[role].files for role in ROLES}
            signature = Subject(name, pair_id, contract, digests, files).signed_by(signer, who, why)
        all_tags = {**(tags or {}), PAIR_ID: pair_id, "family": family, "contract": contract}
        with self._writing(name) as (ticket, aliases):
            version = create_pair(self.client, ticket, name, run_id, logged, all_tags, card.description(), signature)
            aliases.move(ticket, STAGING, version, who=who, why=why)
        return self.resolve(name, version)

    def sign(self, name: str, version: int, *, who: str, why: str) -> PairInfo:
        """Sign a pair that is registered already, after checking its files against the digests of its registration.

        That says who vouches for what lies there now; whether it is what was trained, the one who signs has to know. A
        signature by another key is replaced.

        Raises:
            SigningKeyError: if there is no key, or it cannot be used.
            PairNotFoundError: if there is no such pair.
            PairIntegrityError: if its files were changed, or it carries a signature of something else.
        """
        signer = Signer(self.settings)
        with self._writing(name) as (ticket, _):
            info = self.resolve(name, version)
            require_unchanged(info)
            for role in ROLES:
                with verified_copy(replace(self.fetch, verify_keys=()), info, role):
                    pass
            text = checked_signature(name, Subject.of(info).signed_by(signer, who, why))
            ticket.keep()
            self.client.set_model_version_tag(registered_model(name, "model"), str(info.version), SIGNATURE, text)
        return self.resolve(name, version)

    def names(self) -> list[str]:
        """Return the stems of all registered pairs, sorted."""
        end, names, token = registered_model("", "model"), list[str](), None
        while True:
            page = self.client.search_registered_models(max_results=200, page_token=token)
            names += [model.name.removesuffix(end) for model in page if model.name.endswith(end)]
            token = page.token
            if not token:
                return sorted(names)

    def alias_versions(self, name: str) -> dict[str, int]:
        """Return every alias and the version it stands for, `previous` among them.

        Raises:
            PairNotFoundError: if nothing was ever registered under the name.
        """
        self._require(name)
        return Aliases(self.client, name).read().current

    def versions(self, name: str) -> list[int]:
        """Return the numbers of all complete pairs, newest first.

        Raises:
            PairNotFoundError: if nothing was ever registered under the name.
        """
        self._require(name)
        return [
            int(found.version)
            for found in newest_first(self.client, registered_model(name, "model"))
            if is_complete(found)
        ]

    def resolve(self, name: str, ref: str | int = PRODUCTION) -> PairInfo:
        """Return the pair that an alias, a version number or `latest` (the newest complete pair) stands for.

        The three versions are checked to belong together. The artifacts are checked whenever they are read, and by
        `verify`.

        Raises:
            PairNotFoundError: if there is none.
            PairIntegrityError: if the version's partners do not belong to it.
        """
        info = self.find(name, ref)
        if info is None:
            raise PairNotFoundError(absence(self.client, name, str(ref)))
        return info

    def find(self, name: str, ref: str | int) -> PairInfo | None:
        """Return the pair as `resolve` does, or None if there is none."""
        info = find_pair(self.client, name, str(ref))
        if info is not None:
            check_partners(self.client, info)
        return info

    def refusal(self, name: str) -> str | None:
        """Say what keeps the newest complete pair out of production, the gate's reason included; `None` without one."""
        return refusal(self.client, name)

    def of_run(self, name: str, run_id: str) -> PairInfo:
        """Return the pair that an MLflow run registered, the newest if there are several.

        Raises:
            PairNotFoundError: if the run registered none.
        """
        version = pair_of_run(self.client, name, run_id)
        if version is None:
            raise PairNotFoundError(
                f"MLflow run {run_id} registered no pair {name!r}; materialise {name}/registered_pair first"
            )
        return self.resolve(name, version)

    def load(self, info: PairInfo) -> Forecaster:
        """Read a pair's artifacts, verifying signature and digests before anything is deserialised.

        A model that has a faster way of answering was compared with itself as fitted on the pair's stored example; its
        `inference` says which of the two answers.

        Raises:
            PairIntegrityError: naming the files that are missing, were changed or were added, or if the pair lacks
                the signature that `Settings.verify_keys` ask for.
        """
        return load_pair(self.fetch, info)

    def verify(self, info: PairInfo) -> None:
        """Check partners, signature and the digests of all stored files without loading anything.

        Raises:
            PairIntegrityError: as `resolve` and `load` do.
        """
        check_partners(self.client, info)
        for role in ROLES:
            with self.copy(info, role):
                pass

    def example(self, info: PairInfo) -> tuple[pd.DataFrame, Float32]:
        """Return the stored input example and the answer the pair gave when it was registered."""
        return stored_example(self.fetch, info)

    def reproduce_example(self, info: PairInfo) -> list[str]:
        """Load the pair and return what it answers differently for its stored example, comparing bits."""
        return differences(self.load(info), *self.example(info))

    def card(self, info: PairInfo) -> dict[str, Any]:
        """Return the pair's model card."""
        with self.copy(info, "forecaster") as folder:
            document: dict[str, Any] = json.loads((folder / CARD / cards.JSON_FILE).read_text())
        return document

    def copy(self, info: PairInfo, role: str) -> contextlib.AbstractContextManager[Path]:
        """Return a context with a copy of one of the pair's stored models, verified, in a folder of its own.

        Raises:
            PairIntegrityError: as `load` does.
        """
        return verified_copy(self.fetch, info, role)

    @property
    def fetch(self) -> Fetch:
        """The registry as a place that stored models are copied from."""
        return Fetch(self._copy_from_registry, self.settings.verify_keys)

    def promote(
        self, name: str, version: int, who: str, why: str, *, champion: int | Literal["any"] | None = "any"
    ) -> PairInfo:
        """Make a pair the production pair, after checking it; the one it replaces becomes `previous`.

        Parameters:
            champion: the production version this was decided against, None if there was none; "any" does not mind.

        Raises:
            PairNotFoundError, PairIntegrityError: if the pair is not there or not whole.
            PairConflictError: if another version went into production since the decision.
        """
        with self._writing(name) as (ticket, aliases):
            current = aliases.read().stored.get(PRODUCTION)
            if champion not in ("any", current):
                raise PairConflictError(
                    f"version {version} of {name!r} was to replace {_described(champion)}, but meanwhile production is "
                    f"on {_described(current)}; decide again"
                )
            self._put_into_production(ticket, aliases, name, version, who, why)
        return self.resolve(name, version)

    def rollback(self, name: str, *, to: int | None = None, who: str, why: str) -> PairInfo:
        """Put an earlier pair back into production, after checking it.

        Parameters:
            to: its version; by default the one that was in production before.

        Raises:
            PairNotFoundError: if there is no such pair, or it is in production already.
            PairIntegrityError: if it was changed after registration.
        """
        with self._writing(name) as (ticket, aliases):
            target = self.resolve(name, PREVIOUS if to is None else to)
            if target.version == aliases.read().stored.get(PRODUCTION):
                raise PairNotFoundError(
                    f"version {target.version} of {name!r} is in production already, so there is nothing to roll back"
                )
            self._put_into_production(ticket, aliases, name, target.version, who, why)
        return self.resolve(name, target.version)

    def set_alias(self, name: str, alias: str, version: int, *, who: str, why: str) -> None:
        """Point an alias at a complete pair, and record it.

        Raises:
            ValueError: for `production`, which `promote` moves, and `previous` and `latest`, which are computed.
        """
        if alias in (PRODUCTION, PREVIOUS, LATEST):
            raise ValueError(
                f"the alias {alias!r} cannot be set: promote or roll back moves {PRODUCTION!r}, {PREVIOUS!r} follows "
                f"from its history, and {LATEST!r} is the newest complete pair"
            )
        with self._writing(name) as (ticket, aliases):
            self.resolve(name, version)
            aliases.move(ticket, alias, version, who=who, why=why)

    def evidence(self, name: str, check: str) -> dict[int, Evidence]:
        """Return version -> what a check last found about it, of all versions that it looked at."""
        tag = tag_name(check)
        versions = newest_first(self.client, registered_model(name, "model"))
        return {int(each.version): Evidence.from_tag(each.tags[tag]) for each in versions if tag in each.tags}

    def history(self, name: str) -> list[AliasChange]:
        """Return every change of every alias, oldest first; one of unknown time stands before the next of its alias."""
        self._require(name)
        return Aliases(self.client, name).read().timeline()

    def repair(self, name: str) -> RepairReport:
        """Put right what writers that were cut off left behind; changes nothing if all is in order.

        Raises:
            PairNotFoundError: if nothing was ever registered under the name.
        """
        self._require(name)
        ensure_models(self.client, name)
        with self._writing(name) as (ticket, aliases):
            return repair_pairs(self, ticket, aliases, name)

    def _put_into_production(
        self, ticket: Ticket, aliases: Aliases, name: str, version: int, who: str, why: str
    ) -> None:
        self.verify(self.resolve(name, version))
        aliases.move(ticket, PRODUCTION, version, who=who, why=why)

    @contextlib.contextmanager
    def _writing(self, name: str) -> Iterator[tuple[Ticket, Aliases]]:
        self._require(name)
        with only_writer(self.client, self.settings, name) as ticket:
            yield ticket, Aliases(self.client, name)

    def _require(self, name: str) -> None:
        try:
            self.client.get_registered_model(registered_model(name, "model"))
        except mlflow_error() as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise PairNotFoundError(
                f"no pair {name!r} was ever registered; run mlplatform train {name}, or the job train_{name}, first"
            ) from error

    def _copy_from_registry(self, info: PairInfo, role: str, place: Path) -> Path:
        return fetch_from_registry(self.settings, self.client, info, role, place)


def _described(version: object) -> str:
    return "no version" if version is None else f"version {version}"
