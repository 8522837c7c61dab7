"""Signatures over lists of digests: OpenSSF model-signing bundles, made with one key and checked against several.

A bundle is a Sigstore bundle (v0.3) whose DSSE envelope holds an in-toto statement with the predicate of the OpenSSF
Model Signing specification v1.0: SHA-256 digests by the name of what they are of. It is signed with an elliptic-curve
key and checked without a network. The private key is read for the moment of signing and kept nowhere.

Here: keys, and what a bundle says. Not here: what of a pair is signed, and when a signature is asked for (`pairs`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from mlplatform.settings import SIGNING_KEY, SIGNING_KEY_PASSWORD, VERIFY_KEY, Settings

if TYPE_CHECKING:
    from model_signing import hashing

# The tag of a pair's version that holds its signature: a bundle, and the word of who signed.
SIGNATURE = "signature"
KEY_FILES = (".pem", ".pub")
SHOWN_DIGITS = 12
_EXTRA = "the package model-signing is not installed; install mlplatform with its extra `signing`"


class SignatureError(ValueError):
    """A signature that is not there, cannot be checked, or is of something else; the message ends a sentence."""


class SigningKeyError(ValueError):
    """The private key cannot be used."""


class Claim(NamedTuple):
    """What a bundle says, believed or not: the fingerprint of its key, and digests by name."""

    key: str
    digests: Mapping[str, str]


class Signer:
    """Signs with the key that the settings name.

    Raises:
        SigningKeyError: if there is none, or what it signs would be refused by the keys that the settings verify with.
    """

    def __init__(self, settings: Settings) -> None:
        if settings.signing_key is None:
            raise SigningKeyError(f"nothing can be signed without a key; name its PEM file in {SIGNING_KEY}")
        self._path = settings.signing_key
        # Bytes, whatever its annotation says: the library hands it on as it is.
        self._password: Any = settings.signing_key_password.encode() if settings.signing_key_password else None
        signed = self.sign("key", {})
        if settings.verify_keys:
            try:
                verified_digests(signed, settings.verify_keys)
            except SignatureError as error:
                raise SigningKeyError(
                    f"what the key in {SIGNING_KEY} signs would be refused here, because it {error}. Add its public "
                    f"key to {VERIFY_KEY} first"
                ) from error

    def sign(self, name: str, digests: Mapping[str, str]) -> str:
        """Return a bundle over digests.

        Parameters:
            name: of what is signed, for people; nothing compares it.
            digests: SHA-256 in hexadecimal digits by name.

        Raises:
            SigningKeyError: if the key cannot be read or is of another kind.
        """
        try:
            from model_signing import signing
        except ImportError as error:
            raise SigningKeyError(f"nothing can be signed: {_EXTRA} ({error})") from error
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder, "bundle.json")
            try:
                config = signing.Config()  # type: ignore[no-untyped-call]
                config.use_elliptic_key_signer(private_key=self._path, password=self._password)
            except (OSError, ValueError, TypeError, AttributeError) as error:
                # The library's words hold neither key nor password.
                raise SigningKeyError(
                    f"{SIGNING_KEY} must name a PEM file with a private key on the curve P-256 (or P-384, P-521), and "
                    f"{SIGNING_KEY_PASSWORD} its password if it has one: {error}"
                ) from None
            config.set_hashing_config(_recorded(name, digests)).sign(folder, place)
            return place.read_text()


def bundle_of(tag: str) -> str:
    """Return the bundle in the value of the tag `signature`.

    Raises:
        SignatureError: if there is none.
    """
    return json.dumps(_value(tag)["bundle"])


def word_of(tag: str) -> Mapping[str, str]:
    """Return who signed, why and when, from the value of the tag `signature`; raises as `bundle_of`."""
    word: Mapping[str, str] = _value(tag)["word"]
    return word


def tag_of(bundle: str, word: Mapping[str, str]) -> str:
    """Return the value of the tag `signature`."""
    return json.dumps({"word": dict(word), "bundle": json.loads(bundle)}, separators=(",", ":"))


def claim(bundle: str) -> Claim:
    """Return what a bundle says, without believing it.

    Raises:
        SignatureError: if it is no bundle with a key's signature.
    """
    try:
        document = json.loads(bundle)
        key = document["verificationMaterial"]["publicKey"]["hint"]
        statement = json.loads(base64.b64decode(document["dsseEnvelope"]["payload"], validate=True))
        digests = {entry["name"]: entry["digest"] for entry in statement["predicate"]["resources"]}
    except (ValueError, KeyError, TypeError) as error:
        raise _unreadable(error) from error
    if not isinstance(key, str):
        raise SignatureError("has a signature that does not say with which key it was made")
    return Claim(key, digests)


def verified_digests(bundle: str, places: Sequence[Path]) -> Claim:
    """Return what a bundle says, after checking that one of the keys in `places` signed it.

    Parameters:
        places: PEM files of public keys, and folders of them.

    Raises:
        SignatureError: if no such key signed it, or no key can be read.
    """
    keys, claimed = public_keys(places), claim(bundle)
    if claimed.key not in keys:
        known = ", ".join(key[:SHOWN_DIGITS] for key in keys)
        raise SignatureError(
            f"is signed with the unknown key {claimed.key[:SHOWN_DIGITS]} ({VERIFY_KEY} knows {known})"
        )
    try:
        from model_signing import verifying
    except ImportError as error:
        raise SignatureError(f"cannot be verified: {_EXTRA} ({error})") from error
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "bundle.json")
        place.write_text(bundle)
        try:
            config = verifying.Config()  # type: ignore[no-untyped-call]
            config.use_elliptic_key_verifier(public_key=keys[claimed.key])
            # Compared with what the library reads in the signed statement, so nothing is taken from elsewhere.
            config.set_hashing_config(_recorded("", claimed.digests)).verify(folder, place)
        except Exception as error:
            # A forged bundle makes the libraries beneath raise many things; each means that it was not verified.
            raise SignatureError(
                f"has a forged or damaged signature: the key {claimed.key[:SHOWN_DIGITS]} that it names did not sign "
                f"what it holds ({type(error).__name__}{f': {error}' if str(error) else ''})"
            ) from error
    return claimed


def public_keys(places: Sequence[Path]) -> dict[str, Path]:
    """Return the files of public keys by their fingerprints: SHA-256 of the PEM text, as in a bundle.

    They are read each time, so a key that is added to a folder, or removed from it, counts from then on.

    Parameters:
        places: PEM files of public keys, and folders in which every file `*.pem` or `*.pub` is one.

    Raises:
        SignatureError: if a file cannot be read, is no public key, or a folder holds none.
    """
    found: dict[str, Path] = {}
    for place in places:
        try:
            files = _key_files(place) if place.is_dir() else [place]
            found |= {_fingerprint(path): path for path in files}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise SignatureError(
                f"cannot be verified: {VERIFY_KEY} names {place}, but {error}. Let it name PEM files of public keys, "
                "or folders that hold some as *.pem or *.pub"
            ) from error
    return found


def _value(tag: str) -> dict[str, Any]:
    try:
        value = json.loads(tag)
        if isinstance(value["bundle"], dict) and isinstance(value["word"], dict):
            return dict(value)
        raise TypeError("it holds something else than a bundle and a word")
    except (ValueError, KeyError, TypeError) as error:
        raise _unreadable(error) from error


def _unreadable(error: Exception) -> SignatureError:
    return SignatureError(f"has a signature that cannot be read ({type(error).__name__}: {error})")


def _key_files(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.iterdir() if path.suffix in KEY_FILES and path.is_file())
    if not files:
        raise ValueError("there is no key in it")
    return files


def _fingerprint(path: Path) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    try:
        key = load_pem_public_key(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path.name} is no public key in PEM form") from error
    return hashlib.sha256(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _recorded(name: str, digests: Mapping[str, str]) -> hashing.Config:
    """Return a hashing configuration of the library that takes digests as they are, instead of reading files."""
    from model_signing import hashing, manifest
    from model_signing._hashing.hashing import Digest

    kind = manifest.SerializationType.from_args({"method": "files", "hash_type": "sha256", "allow_symlinks": False})
    items = [
        manifest.FileManifestItem(path=PurePosixPath(path), digest=Digest("sha256", bytes.fromhex(value)))
        for path, value in digests.items()
    ]

    class Recorded(hashing.Config):
        def hash(self, *_: object, **__: object) -> manifest.Manifest:
            return manifest.Manifest(name, items, kind)

    return Recorded()  # type: ignore[no-untyped-call]
