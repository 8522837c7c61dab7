"""The signature of a pair: what it covers, where it stands, and what is refused without one.

It covers the pair's name, id and contract, the digests of its fitted states, the digest of every file of its three
registered models, and who signed it, when and why. So halves of two pairs do not go together, and no pair can take the
name of another. It does not cover the version number, aliases and what checks found, which are decided later.

It stands in the tag `signature` of the version of `<name>_model`. Whoever may write to the registry can take it away or
put another in its place, but cannot make one.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlplatform.registry.forecaster import Contract
from mlplatform.registry.pairs.info import ROLES, PairInfo, PairIntegrityError
from mlplatform.registry.signing import (
    SHOWN_DIGITS,
    SIGNATURE,
    Claim,
    SignatureError,
    Signer,
    bundle_of,
    claim,
    tag_of,
    verified_digests,
    word_of,
)
from mlplatform.settings import VERIFY_KEY

SHOWN = 5


@dataclass(frozen=True)
class Subject:
    """What of a pair is signed.

    Attributes:
        contract: as the text that the registry holds.
        digests: per role, of the fitted state.
        files: per role, SHA-256 of every stored file by its path.
    """

    name: str
    pair_id: str
    contract: str
    digests: Mapping[str, str]
    files: Mapping[str, Mapping[str, str]]

    @classmethod
    def of(cls, info: PairInfo) -> Subject:
        """Return what a registered pair presents itself as."""
        text = info.tags.get("contract", "")
        # The text is signed, because a later contract may write the same facts otherwise; the facts are what is read.
        is_same = bool(text) and Contract.from_json(text) == info.contract
        contract = text if is_same else info.contract.to_json()
        return cls(info.name, info.pair_id, contract, info.digests, info.files)

    def signed_by(self, signer: Signer, who: str, why: str) -> str:
        """Return the value of the tag `signature`."""
        word = {"who": who, "why": why, "at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds")}
        return tag_of(signer.sign(self.name, self._signed(word)), word)

    def differences(self, claimed: Claim, word: Mapping[str, str]) -> list[str]:
        """Return the names of what differs from what was signed; `word` is who signed, why and when."""
        mine = self._signed(word)
        return sorted(name for name in {*mine, *claimed.digests} if mine.get(name) != claimed.digests.get(name))

    def _signed(self, word: Mapping[str, str]) -> dict[str, str]:
        facts = {"name": self.name, "pair_id": self.pair_id, "contract": self.contract}
        facts |= {f"digests/{role}": self.digests[role] for role in ROLES}
        facts |= {"word": json.dumps(dict(word), sort_keys=True)}
        files = {f"{role}/{path}": value for role in ROLES for path, value in self.files[role].items()}
        return {f"pair/{key}": hashlib.sha256(text.encode()).hexdigest() for key, text in facts.items()} | files


def require_signature(info: PairInfo, keys: Sequence[Path]) -> None:
    """Refuse a pair that none of the keys signed as it is; any pair will do without keys.

    Parameters:
        keys: PEM files of public keys, and folders of them.

    Raises:
        PairIntegrityError: saying whether it is unsigned, signed with an unknown key, or what of it is not as signed.
    """
    if not keys:
        return
    try:
        _check(info, keys)
    except SignatureError as error:
        raise PairIntegrityError(
            f"version {info.version} of {info.name!r}, pair {info.pair_id}, {error}. Nothing of it was loaded: roll "
            "back to a signed version, train again, or, if you know where it comes from, sign it with python -m "
            f"mlplatform.registry.pairs sign {info.name} --version {info.version}"
        ) from error


def require_unchanged(info: PairInfo) -> None:
    """Refuse a pair that carries a signature of something else, by whatever key: that is not to be signed anew.

    Raises:
        PairIntegrityError: naming what differs.
    """
    if SIGNATURE not in info.tags:
        return
    try:
        _compare(info, claim(bundle_of(info.tags[SIGNATURE])))
    except SignatureError as error:
        raise PairIntegrityError(
            f"version {info.version} of {info.name!r}, pair {info.pair_id}, {error}. It is not signed again; if you "
            f"know that the pair is sound, delete the tag {SIGNATURE!r} of this version of {info.name}_model first"
        ) from error


def describe_signature(info: PairInfo, keys: Sequence[Path]) -> str:
    """Say in a line whether a pair is signed, by whom and why, and whether the keys, if there are any, accept it."""
    if SIGNATURE not in info.tags:
        return "not signed"
    try:
        word, key = word_of(info.tags[SIGNATURE]), claim(bundle_of(info.tags[SIGNATURE])).key
        found = f"signed by {word.get('who')} at {word.get('at')} with the key {key[:SHOWN_DIGITS]}: {word.get('why')}"
        if keys:
            _check(info, keys)
    except SignatureError as error:
        return f"refused: {error}"
    return found if keys else f"{found} (not verified: {VERIFY_KEY} is not set)"


def _check(info: PairInfo, keys: Sequence[Path]) -> None:
    if SIGNATURE not in info.tags:
        raise SignatureError(f"is not signed, and {VERIFY_KEY} asks for signatures")
    _compare(info, verified_digests(bundle_of(info.tags[SIGNATURE]), keys))


def _compare(info: PairInfo, claimed: Claim) -> None:
    wrong = Subject.of(info).differences(claimed, word_of(info.tags[SIGNATURE]))
    if wrong:
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise SignatureError(
            f"is not what was signed: {', '.join(wrong[:SHOWN])}{more} differ. The signature is of another pair, or "
            "the registry was changed after it was made"
        )
