"""With keys to verify nothing is read that none of them signed as it is; without, nothing changes."""

from __future__ import annotations

import base64
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mlplatform.registry.digests import DIGESTS, DIGESTS_FILE, write_digests
from mlplatform.registry.pairs import (
    PREVIOUS,
    PRODUCTION,
    ROLES,
    STAGING,
    Fetch,
    KeptPairs,
    PairInfo,
    PairIntegrityError,
    PairStore,
    load_pair,
    state_digests,
)
from mlplatform.registry.pairs.__main__ import main
from mlplatform.registry.pairs.info import digest_tag, files_tag
from mlplatform.registry.signing import SIGNATURE, SigningKeyError, bundle_of, public_keys, word_of
from mlplatform.registry.tracking import experiment_id, open_tracking
from mlplatform.settings import Settings
from mlplatform.testing.tiny_pair import NAME, TinyRegistry, tiny_forecaster
from mlplatform.testing.yard import place_database
from mlplatform_tests.fixtures.keys import KeyPair, write_key

PASSWORD = "correct horse battery staple"
SIGNED, OTHER, UNSIGNED = 1, 2, 3


class Keys(NamedTuple):
    """The key that signs, with a password, and one that nobody here knows."""

    mine: KeyPair
    strange: KeyPair


@dataclass(frozen=True)
class Signed:
    """A registry of tiny pairs: 1 and 2 are signed and differ in both halves, 3 is not signed. All may be changed but
    the artifacts, which are shared."""

    registry: TinyRegistry
    keys: Keys

    @property
    def store(self) -> PairStore:
        return self.registry.store

    def with_keys(self, *places: Path) -> PairStore:
        """Return a store that verifies with other keys."""
        return PairStore(replace(self.registry.settings, verify_keys=places))

    def tag(self, version: int, name: str, value: str) -> None:
        self.store.client.set_model_version_tag(f"{NAME}_model", str(version), name, value)

    def resign(self, version: int, change: Callable[[dict[str, Any]], None]) -> None:
        """Change what a signature holds."""
        text = self.store.resolve(NAME, version).tags[SIGNATURE]
        value = json.loads(text)
        change(value)
        self.tag(version, SIGNATURE, json.dumps(value))


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    folder = tmp_path_factory.mktemp("keys")
    return Keys(write_key(folder, "mine", PASSWORD), write_key(folder, "strange"))


@pytest.fixture(scope="module")
def signed_stock(mlflow_database: Path, keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> TinyRegistry:
    environ = {
        "MLPLATFORM_HOME": str(tmp_path_factory.mktemp("signed")),
        "MLPLATFORM_SIGNING_KEY": str(keys.mine.private),
        "MLPLATFORM_SIGNING_KEY_PASSWORD": PASSWORD,
        "MLPLATFORM_VERIFY_KEY": str(keys.mine.public),
    }
    settings = Settings.from_env(environ)
    place_database(mlflow_database, settings)
    registry = TinyRegistry.create(settings)
    registry.register(tiny_forecaster())
    registry.register(tiny_forecaster(rounds=5, first_row=6))
    replace(registry, settings=settings.without_signing_key()).register(tiny_forecaster())
    return registry


@pytest.fixture
def signed(signed_stock: TinyRegistry, keys: Keys, tmp_path: Path) -> Signed:
    database = tmp_path / "signed.db"
    shutil.copy(signed_stock.settings.mlflow_tracking_uri.removeprefix("sqlite:///"), database)
    settings = replace(signed_stock.settings, home=tmp_path, mlflow_tracking_uri=f"sqlite:///{database}")
    return Signed(replace(signed_stock, settings=settings), keys)


def _copy_nothing(*_: object) -> Path:
    raise AssertionError("a byte was copied of what was not verified")


def set_environment(monkeypatch: pytest.MonkeyPatch, signed: Signed, keys: Keys) -> None:
    """Let the environment say what the settings of `signed` say."""
    monkeypatch.setenv("MLPLATFORM_HOME", str(signed.registry.settings.home))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", signed.registry.settings.mlflow_tracking_uri)
    monkeypatch.setenv("MLPLATFORM_SIGNING_KEY", str(keys.mine.private))
    monkeypatch.setenv("MLPLATFORM_SIGNING_KEY_PASSWORD", PASSWORD)
    monkeypatch.setenv("MLPLATFORM_VERIFY_KEY", str(keys.mine.public))


def readers(store: PairStore, info: PairInfo) -> Mapping[str, Callable[[], object]]:
    """Return all that reads or moves a pair."""
    return {
        "verify": lambda: store.verify(info),
        "load": lambda: store.load(info),
        "example": lambda: store.example(info),
        "card": lambda: store.card(info),
        "reproduce_example": lambda: store.reproduce_example(info),
        "keep": lambda: KeptPairs(store.settings.served_pairs_dir, store.settings.verify_keys).keep(info, store.fetch),
        "promote": lambda: store.promote(info.name, info.version, "test", "a test"),
        "rollback": lambda: store.rollback(info.name, to=info.version, who="test", why="a test"),
    }


def refusal(store: PairStore, version: int, name: str = NAME) -> str:
    """Return the error with which every reader refuses a pair; nothing of it was copied, and no alias moved."""
    info, before, found = store.resolve(name, version), store.history(name), set[str]()
    store._copy_from_registry = _copy_nothing  # type: ignore[method-assign]
    for reader, read in readers(store, info).items():
        with pytest.raises(PairIntegrityError) as error:
            read()
        assert f"version {version} of {name!r}, pair {info.pair_id}, " in str(error.value), reader
        found.add(str(error.value))
    assert store.history(name) == before
    assert len(found) == 1
    return found.pop()


def test_a_signed_pair_is_read_like_any_other_and_its_tag_says_who_signed_it(signed: Signed) -> None:
    store = signed.store
    info = store.resolve(NAME, SIGNED)
    for name, read in readers(store, info).items():
        if name != "rollback":
            read()
    assert store.reproduce_example(info) == []
    word = word_of(info.tags[SIGNATURE])
    assert (word["who"], word["why"]) == ("registration", f"registered by MLflow run {info.run_id}")
    assert SIGNATURE not in store.client.get_model_version(f"{NAME}_forecaster", "1").tags


def test_the_bundle_is_one_that_the_openssf_tool_accepts_for_the_pair_s_files(signed: Signed, tmp_path: Path) -> None:
    from model_signing import verifying

    store, folder = signed.store, tmp_path / "pair"
    info = store.resolve(NAME, SIGNED)
    for role in ROLES:
        shutil.copytree(store.fetch.copy(info, role, tmp_path / role), folder / role)
    facts = {"name": info.name, "pair_id": info.pair_id, "contract": info.tags["contract"]}
    facts |= {f"digests/{role}": info.digests[role] for role in ROLES}
    facts |= {"word": json.dumps(word_of(info.tags[SIGNATURE]), sort_keys=True)}
    (folder / "pair" / "digests").mkdir(parents=True)
    for name, text in facts.items():
        (folder / "pair" / name).write_text(text)
    bundle = tmp_path / "pair.sig"
    bundle.write_text(bundle_of(info.tags[SIGNATURE]))
    check = verifying.Config().use_elliptic_key_verifier(public_key=signed.keys.mine.public)
    check.verify(folder, bundle)
    (folder / "pair" / "name").write_text("another")
    with pytest.raises(ValueError, match=r"Hash mismatch for .{1,2}pair/name"):
        check.verify(folder, bundle)


def test_an_unsigned_pair_is_refused_by_every_reader(signed: Signed) -> None:
    message = refusal(signed.store, UNSIGNED)
    assert "is not signed, and MLPLATFORM_VERIFY_KEY asks for signatures. Nothing of it was loaded" in message
    assert f"python -m mlplatform.registry.pairs sign {NAME} --version 3" in message


def test_without_keys_to_verify_signed_and_unsigned_pairs_are_read(signed: Signed) -> None:
    store = signed.with_keys()
    for version in (SIGNED, OTHER, UNSIGNED):
        assert store.reproduce_example(store.resolve(NAME, version)) == []


def test_a_pair_signed_with_another_key_is_refused(signed: Signed) -> None:
    (mine,), (strange,) = (public_keys([pair.public]) for pair in signed.keys)
    message = refusal(signed.with_keys(signed.keys.strange.public), SIGNED)
    assert f"is signed with the unknown key {mine[:12]} (MLPLATFORM_VERIFY_KEY knows {strange[:12]})" in message


def test_a_signature_that_claims_a_known_key_and_is_of_another_is_refused(signed: Signed) -> None:
    (strange,) = public_keys([signed.keys.strange.public])

    def claim_another_key(value: dict[str, Any]) -> None:
        value["bundle"]["verificationMaterial"]["publicKey"]["hint"] = strange

    signed.resign(SIGNED, claim_another_key)
    message = refusal(signed.with_keys(signed.keys.strange.public), SIGNED)
    assert f"has a forged or damaged signature: the key {strange[:12]} that it names did not sign" in message


def test_a_list_of_files_that_was_changed_inside_the_signature_is_refused(signed: Signed) -> None:
    def add_a_file(value: dict[str, Any]) -> None:
        envelope = value["bundle"]["dsseEnvelope"]
        statement = json.loads(base64.b64decode(envelope["payload"]))
        statement["predicate"]["resources"].append({"name": "model/x.py", "algorithm": "sha256", "digest": "00" * 32})
        envelope["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()

    signed.resign(SIGNED, add_a_file)
    assert "has a forged or damaged signature" in refusal(signed.store, SIGNED)


@pytest.mark.parametrize(
    "tag",
    [
        pytest.param("", id="empty"),
        pytest.param("[]", id="list"),
        pytest.param('{"word": {}, "bundle": {}}', id="nothing in it"),
        pytest.param('{"word": {}, "bundle": {"verificationMaterial": {"publicKey": {"hint": 1}}}}', id="half"),
    ],
)
def test_a_signature_that_cannot_be_read_is_refused(signed: Signed, tag: str) -> None:
    signed.tag(SIGNED, SIGNATURE, tag)
    assert "has a signature that cannot be read" in refusal(signed.store, SIGNED)


def test_a_bundle_without_a_signature_in_it_is_refused(signed: Signed) -> None:
    signed.resign(SIGNED, lambda value: value["bundle"]["dsseEnvelope"].update(signatures=[]))
    assert "has a forged or damaged signature" in refusal(signed.store, SIGNED)


def test_a_bundle_that_hides_its_key_is_refused(signed: Signed) -> None:
    signed.resign(SIGNED, lambda value: value["bundle"]["verificationMaterial"]["publicKey"].pop("hint"))
    assert "has a signature that cannot be read" in refusal(signed.store, SIGNED)


def test_a_file_that_was_changed_together_with_its_digest_is_refused_by_name(signed: Signed) -> None:
    info = signed.store.resolve(NAME, SIGNED)
    files = dict(info.files["model"])
    path = next(path for path in files if path.endswith(".ubj"))
    signed.tag(SIGNED, files_tag("model"), json.dumps({**files, path: "0" * 64}))
    message = refusal(signed.store, SIGNED)
    assert f"is not what was signed: model/{path} differ" in message


@pytest.mark.parametrize("change", ["added", "missing"])
def test_a_file_that_was_added_or_removed_in_the_registry_is_refused_by_name(signed: Signed, change: str) -> None:
    files = dict(signed.store.resolve(NAME, SIGNED).files["forecaster"])
    path = "artifacts/model/extra.py" if change == "added" else next(iter(files))
    _ = files.pop(path, None) or files.update({path: "0" * 64})
    signed.tag(SIGNED, files_tag("forecaster"), json.dumps(files))
    assert f"is not what was signed: forecaster/{path} differ" in refusal(signed.store, SIGNED)


@pytest.mark.parametrize("role", ROLES)
def test_a_signed_half_of_another_pair_is_refused(signed: Signed, role: str) -> None:
    """All that the registry says of one role is that of another signed pair."""
    other = signed.store.resolve(NAME, OTHER)
    for tag in (files_tag(role), digest_tag(role)):
        signed.tag(SIGNED, tag, other.tags[tag])
    message = refusal(signed.store, SIGNED)
    assert "is not what was signed: " in message
    assert f"pair/digests/{role}" in message or f"{role}/" in message


@pytest.mark.parametrize(("replayed", "onto"), [(SIGNED, UNSIGNED), (SIGNED, OTHER)])
def test_a_signature_of_another_pair_is_refused(signed: Signed, replayed: int, onto: int) -> None:
    signed.tag(onto, SIGNATURE, signed.store.resolve(NAME, replayed).tags[SIGNATURE])
    message = refusal(signed.store, onto)
    assert "is not what was signed: " in message
    assert "The signature is of another pair, or the registry was changed" in message


def test_a_signed_pair_under_another_name_is_refused(signed: Signed) -> None:
    store = signed.store
    for role in ROLES:
        model = f"{NAME}_{role}"
        store.client.create_registered_model(f"other_{role}")
        source = store.client.get_model_version(model, str(SIGNED))
        store.client.create_model_version(f"other_{role}", source.source, source.run_id, dict(source.tags))
    assert signed.with_keys().reproduce_example(store.resolve("other", 1)) == []
    assert "is not what was signed: pair/name differ" in refusal(store, 1, "other")


def test_another_contract_is_refused(signed: Signed) -> None:
    contract = signed.store.resolve(NAME, SIGNED).contract
    signed.tag(SIGNED, "contract", replace(contract, step_seconds=1800).to_json())
    assert "is not what was signed: pair/contract differ" in refusal(signed.store, SIGNED)


def test_who_signed_and_why_cannot_be_rewritten(signed: Signed) -> None:
    signed.resign(SIGNED, lambda value: value["word"].update(who="the auditor"))
    assert "is not what was signed: pair/word differ" in refusal(signed.store, SIGNED)


def test_changed_files_under_a_good_signature_are_still_refused_by_name(signed: Signed) -> None:
    store = signed.store
    info = store.resolve(NAME, SIGNED)

    def changed(pair: PairInfo, role: str, place: Path) -> Path:
        folder = store.fetch.copy(pair, role, place)
        (folder / "MLmodel").write_text("another")
        return folder

    with pytest.raises(PairIntegrityError, match="were changed after registration: MLmodel has SHA-256"):
        load_pair(Fetch(changed, store.settings.verify_keys), info)


class TestKeys:
    """Which keys count, and when."""

    def test_keys_are_rotated_by_adding_the_new_one_first(self, signed: Signed, tmp_path: Path) -> None:
        mine, strange = signed.keys
        folder = tmp_path / "keys"
        folder.mkdir()
        for name in ("..data", "README"):
            (folder / name).mkdir()
        shutil.copy(mine.public, folder / "old.pem")
        store = signed.with_keys(folder)
        info = store.resolve(NAME, SIGNED)
        store.verify(info)
        both = replace(store.settings, signing_key=strange.private, signing_key_password=None)
        with pytest.raises(SigningKeyError, match=r"unknown key .* Add its public key to MLPLATFORM_VERIFY"):
            PairStore(both).sign(NAME, SIGNED, who="test", why="a rotation")
        shutil.copy(strange.public, folder / "new.pub")
        info = PairStore(both).sign(NAME, SIGNED, who="test", why="a rotation")
        store.verify(info)
        # The store that was there before finds the keys as they are now.
        (folder / "old.pem").unlink()
        store.verify(info)
        assert "signed with the unknown key" in refusal(store, OTHER)

    def test_several_places_may_be_named(self, signed: Signed) -> None:
        mine, strange = signed.keys
        environ = {"MLPLATFORM_VERIFY_KEY": os.pathsep.join((str(strange.public), str(mine.public)))}
        store = signed.with_keys(*Settings.from_env(environ).verify_keys)
        store.verify(store.resolve(NAME, SIGNED))

    @pytest.mark.parametrize("kind", ["missing", "empty folder", "private", "text"])
    def test_a_key_that_cannot_be_read_lets_nothing_through(self, signed: Signed, tmp_path: Path, kind: str) -> None:
        places = {name: tmp_path / f"{name}.pem" for name in ("missing", "text")}
        places |= {"empty folder": tmp_path / "none", "private": signed.keys.strange.private}
        places["text"].write_text("no key")
        places["empty folder"].mkdir()
        message = refusal(signed.with_keys(signed.keys.mine.public, places[kind]), SIGNED)
        assert f"cannot be verified: MLPLATFORM_VERIFY_KEY names {places[kind]}, but " in message

    def test_without_the_library_nothing_is_signed_and_nothing_is_let_through(
        self, signed: Signed, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "model_signing", None)
        missing = "the package model-signing is not installed; install mlplatform with its extra `signing`"
        assert f"cannot be verified: {missing}" in refusal(signed.store, SIGNED)
        with pytest.raises(SigningKeyError, match=missing):
            signed.store.sign(NAME, UNSIGNED, who="test", why="a test")

    # Read by a wrong password, one key of 256 looks like another one until it is parsed.
    @pytest.mark.parametrize(
        ("password", "words"),
        [("wrong", "(Incorrect password|Could not deserialize)"), (None, "Password was not given")],
    )
    def test_a_key_that_cannot_be_opened_is_said_before_anything_is_stored(
        self, signed: Signed, password: str | None, words: str
    ) -> None:
        settings = replace(signed.registry.settings, signing_key_password=password)
        runs = len(signed.store.client.search_logged_models([experiment_id(settings, NAME)]))
        with pytest.raises(SigningKeyError, match=f"MLPLATFORM_SIGNING_KEY must name a PEM file .*{words}") as error:
            replace(signed.registry, settings=settings).register(tiny_forecaster())
        assert len(signed.store.client.search_logged_models([experiment_id(settings, NAME)])) == runs
        assert signed.store.versions(NAME) == [3, 2, 1]
        assert PASSWORD not in str(error.value)

    @pytest.mark.parametrize("kind", ["missing", "rsa", "public"])
    def test_a_key_of_another_kind_is_refused(self, signed: Signed, tmp_path: Path, kind: str) -> None:
        path = tmp_path / "rsa.pem"
        key = rsa.generate_private_key(65537, 2048)
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        places = {"missing": tmp_path / "none", "rsa": path, "public": signed.keys.mine.public}
        settings = replace(signed.registry.settings, signing_key=places[kind], signing_key_password=None)
        with pytest.raises(SigningKeyError, match="private key on the curve P-256"):
            PairStore(settings).sign(NAME, UNSIGNED, who="test", why="a test")

    def test_neither_key_nor_password_is_left_anywhere(self, signed: Signed) -> None:
        """Not in tags, artifacts, descriptions or words about the settings."""
        settings, client = signed.registry.settings, signed.store.client
        secrets = (PASSWORD, signed.keys.mine.private.read_text().splitlines()[1])
        stored = [repr(settings), client.get_run(signed.registry.run_id).to_dictionary().__repr__()]
        stored += [repr(dict(version.tags)) + str(version.description) for version in client.search_model_versions()]
        stored += [
            path.read_bytes().decode("latin1")
            for path in Path(settings.mlflow_artifact_root.removeprefix("file://")).rglob("*")
            if path.is_file()
        ]
        assert len(stored) > 40
        assert not [text for text in stored for secret in secrets if secret in text]


class TestSigning:
    """Pairs that were registered without a signature."""

    def test_the_command_signs_and_records_who_and_why(
        self, signed: Signed, keys: Keys, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        set_environment(monkeypatch, signed, keys)
        assert main(["sign", NAME, "--version", "3", "--who", "ana", "--why", "built by run 7 of March"]) == 0
        assert main(["signatures", NAME]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 4
        assert lines[0] == lines[1]
        assert lines[0].startswith("version 3: signed by ana at 20")
        assert lines[0].endswith(": built by run 7 of March")
        store = signed.store
        assert store.reproduce_example(store.resolve(NAME, UNSIGNED)) == []
        monkeypatch.delenv("MLPLATFORM_SIGNING_KEY")
        assert main(["sign", NAME, "--all", "--who", "ana", "--why", "again"]) == 1
        assert "nothing can be signed without a key" in capsys.readouterr().err
        assert main(["signatures", "unknown"]) == 1

    @pytest.mark.parametrize(("who", "why", "named"), [("ana", " ", "--why"), ("", "built by run 7", "--who")])
    def test_a_word_that_says_nothing_is_not_signed(
        self, capsys: pytest.CaptureFixture[str], who: str, why: str, named: str
    ) -> None:
        with pytest.raises(SystemExit):
            main(["sign", NAME, "--version", "3", "--who", who, "--why", why])
        assert f"argument {named}: found" in capsys.readouterr().err

    def test_all_are_signed_but_those_that_cannot_be(
        self, signed: Signed, keys: Keys, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        set_environment(monkeypatch, signed, keys)
        info = signed.store.resolve(NAME, OTHER)
        signed.tag(OTHER, files_tag("model"), json.dumps({**info.files["model"], "MLmodel": "0" * 64}))
        before = signed.store.resolve(NAME, OTHER).tags[SIGNATURE]
        assert main(["sign", NAME, "--all", "--who", "ana", "--why", "all are ours"]) == 1
        out, err = capsys.readouterr()
        assert [line.split(":")[0] for line in out.splitlines()] == ["version 1", "version 3"]
        assert "version 2 was not signed: version 2 of 'tiny'" in err
        assert "is not what was signed: model/MLmodel differ" in err
        assert f"delete the tag {SIGNATURE!r}" in err
        assert signed.store.resolve(NAME, OTHER).tags[SIGNATURE] == before

    def test_changed_files_are_not_signed(self, signed: Signed) -> None:
        info = signed.store.resolve(NAME, UNSIGNED)
        signed.tag(UNSIGNED, files_tag("model"), json.dumps({**info.files["model"], "MLmodel": "0" * 64}))
        with pytest.raises(PairIntegrityError, match="were changed after registration: MLmodel has SHA-256"):
            signed.store.sign(NAME, UNSIGNED, who="test", why="a test")
        assert SIGNATURE not in signed.store.resolve(NAME, UNSIGNED).tags


def test_a_rollback_to_an_unsigned_previous_pair_leaves_production(signed: Signed) -> None:
    signed.with_keys().promote(NAME, UNSIGNED, "test", "before there were keys")
    store = signed.store
    store.promote(NAME, SIGNED, "test", "a test")
    assert store.resolve(NAME, PREVIOUS).version == UNSIGNED
    for back in (None, UNSIGNED):
        with pytest.raises(PairIntegrityError, match=r"version 3 of 'tiny', pair .* is not signed"):
            store.rollback(NAME, to=back, who="test", why="a test")
    assert store.resolve(NAME, PRODUCTION).version == SIGNED
    assert store.repair(NAME).damaged[0].startswith("version 3 (behind previous, staging): version 3 of 'tiny'")
    assert store.resolve(NAME, STAGING).version == UNSIGNED


class TestKeptPairs:
    """The copies that a server starts from while the registry is away."""

    def test_an_unsigned_copy_is_refused_until_the_registry_has_a_signature_for_it(self, signed: Signed) -> None:
        store, folder = signed.store, signed.registry.settings.served_pairs_dir
        KeptPairs(folder, ()).keep(store.resolve(NAME, UNSIGNED), signed.with_keys().fetch)
        kept = KeptPairs(folder, store.settings.verify_keys)
        copy = kept.last(NAME)
        assert copy is not None
        with pytest.raises(PairIntegrityError, match="is not signed"):
            kept.load(copy)
        kept.keep(store.sign(NAME, UNSIGNED, who="test", why="a test"), store.fetch)
        copy = kept.last(NAME)
        assert copy is not None
        kept.load(copy)

    @pytest.mark.parametrize("part", ["contract", "digests", "name", "pair_id"])
    def test_a_copy_that_was_changed_beside_its_signature_is_refused(self, signed: Signed, part: str) -> None:
        store, folder = signed.store, signed.registry.settings.served_pairs_dir
        kept = KeptPairs(folder, store.settings.verify_keys)
        info = store.resolve(NAME, SIGNED)
        kept.keep(info, store.fetch)
        changes = {
            "contract": replace(info.contract, step_seconds=60),
            "digests": {**info.digests, "model": "0" * 64},
            "name": "other",
            "pair_id": "0" * 32,
        }
        described = replace(info, **{part: changes[part]})
        with pytest.raises(PairIntegrityError, match=f"is not what was signed: pair/{part}"):
            kept.load(PairInfo.from_json(described.to_json()))

    def test_the_environment_names_the_keys_unless_someone_else_does(
        self, signed: Signed, keys: Keys, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        set_environment(monkeypatch, signed, keys)
        assert KeptPairs(signed.registry.settings.served_pairs_dir).fetch.verify_keys == (keys.mine.public,)


class TestPlainMLflow:
    """MLflow's own loading, in a process with keys to verify."""

    @pytest.fixture(autouse=True)
    def environment(self, signed: Signed, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
        set_environment(monkeypatch, signed, keys)
        open_tracking(signed.registry.settings)

    @pytest.mark.parametrize("role", ROLES)
    def test_a_signed_pair_is_loaded_and_an_unsigned_one_is_not(self, role: str) -> None:
        mlflow.pyfunc.load_model(f"models:/{NAME}_{role}/{SIGNED}")
        with pytest.raises(ValueError, match="asks for signatures, and no signed pair has its files"):
            mlflow.pyfunc.load_model(f"models:/{NAME}_{role}/{UNSIGNED}")

    def test_a_model_that_was_changed_with_all_its_digests_is_refused(self, signed: Signed, tmp_path: Path) -> None:
        """Its two halves are each of a signed pair, and the digests beside them are right."""
        fetch = signed.store.fetch
        first, second = (
            fetch.copy(signed.store.resolve(NAME, number), "forecaster", tmp_path / str(number))
            for number in (SIGNED, OTHER)
        )
        folder = first / "artifacts"
        shutil.rmtree(folder / "model")
        shutil.copytree(second / "artifacts" / "model", folder / "model")
        write_digests(folder / "new", state_digests(folder))
        (folder / "new" / DIGESTS_FILE).rename(folder / DIGESTS / DIGESTS_FILE)
        (folder / "new").rmdir()
        with pytest.raises(ValueError, match=r"no signed pair has its files .*was signed with other files"):
            mlflow.pyfunc.load_model(str(first))


def test_without_a_key_a_registration_stores_what_it_always_stored(signed: Signed) -> None:
    """The same pair is in the registry signed and unsigned; nothing but the tag `signature` tells them apart."""
    first, third = (signed.store.resolve(NAME, version) for version in (SIGNED, UNSIGNED))
    assert set(first.tags) - set(third.tags) == {SIGNATURE}
    assert first.digests == third.digests
    assert {role: set(files) for role, files in first.files.items()} == {
        role: set(files) for role, files in third.files.items()
    }
