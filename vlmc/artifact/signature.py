"""Signatures of artifacts: Ed25519 over the identity.

A hash proves that a file is what the manifest says; a signature proves who signed it. It is in
`reports/signature.json`, beside the payload, and is bound to the identity, so it travels with the
artifact and cannot be moved to another. Keys are PEM files as OpenSSL writes them:

    openssl genpkey -algorithm ed25519 -out key.pem
    openssl pkey -in key.pem -pubout -out key.pub.pem
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from vlmc.artifact.integrity import REPORTS, Artifact
from vlmc.distribution import install_command
from vlmc.errors import IntegrityError, UsageError
from vlmc.files.atomic import write_atomically
from vlmc.files.strict_json import read_json

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

SIGNATURE = f"{REPORTS}/signature.json"
ALGORITHM = "ed25519"
_MAX_BYTES = 1 << 16
_MAKE_KEYS = (
    "Make a pair with: openssl genpkey -algorithm ed25519 -out key.pem && "
    "openssl pkey -in key.pem -pubout -out key.pub.pem"
)


def is_signed(folder: Path) -> bool:
    """Whether the artifact has a signature; does not check it."""
    return (folder / SIGNATURE).is_file()


def sign(artifact: Artifact, key: Path) -> Path:
    """Sign a checked artifact with the private key in `key`, replacing an older signature.

    Raises:
        UsageError: `key` holds no Ed25519 private key without a password, or `cryptography` is
            not installed.
        IntegrityError: the artifact's folder of reports is a link, which could lead anywhere.
    """
    private = _private_key(key)
    values = {
        "algorithm": ALGORITHM,
        "identity": artifact.identity,
        "public_key": private.public_key().public_bytes_raw().hex(),
        "signature": private.sign(_message(artifact.identity)).hex(),
    }
    path = artifact.folder / SIGNATURE
    if path.parent.is_symlink():
        raise IntegrityError(f"{path.parent} is a link; an artifact holds plain files only")
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, json.dumps(values, indent=1) + "\n")
    return path


def check_signature(artifact: Artifact, public_key: Path) -> None:
    """Check that the holder of the private half of `public_key` signed this very artifact.

    Raises:
        IntegrityError: there is no signature, or it is damaged, another's, or of another artifact.
        UsageError: `public_key` holds no Ed25519 public key, or `cryptography` is not installed.
    """
    expected = _public_key(public_key)
    from cryptography.exceptions import InvalidSignature

    path = artifact.folder / SIGNATURE
    identity, signer, signature = _read(path)
    if identity != artifact.identity:
        raise IntegrityError(
            f"{path} signs the artifact {identity[:16]}…, and this is {artifact.identity[:16]}…. "
            "The artifact was changed or exchanged after it was signed; get it from its signer."
        )
    own = expected.public_bytes_raw()
    if signer != own:
        raise IntegrityError(
            f"{path} was made with the key {signer.hex()[:16]}…, and {public_key} is "
            f"{own.hex()[:16]}…. Whoever signed the artifact does not hold that key."
        )
    try:
        expected.verify(signature, _message(artifact.identity))
    except InvalidSignature:
        raise IntegrityError(
            f"{path} names the key of {public_key}, but was not made with it: it is damaged or "
            "forged. Get the artifact from its signer."
        ) from None


def _message(identity: str) -> bytes:
    """What is signed: never a bare digest, which could be mistaken for something else's."""
    return b"vlmc artifact identity\n" + identity.encode()


def _read(path: Path) -> tuple[str, bytes, bytes]:
    """Identity, public key and signature as the file has them."""
    try:
        values = read_json(path, _MAX_BYTES, follow_links=False)
    except FileNotFoundError:
        raise IntegrityError(
            f"{path.parent.parent} is not signed: there is no {SIGNATURE}. Ask for a signed copy, "
            "or verify it without --public-key."
        ) from None
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise IntegrityError(
            f"{path} is not a valid {ALGORITHM} signature of vlmc ({error}); get the artifact again"
        ) from error
    try:
        if values["algorithm"] != ALGORITHM:
            raise ValueError(f"its algorithm is {str(values['algorithm'])[:40]!r}")
        identity = values["identity"]
        if not isinstance(identity, str):
            raise TypeError("its identity is not text")
        return identity, bytes.fromhex(values["public_key"]), bytes.fromhex(values["signature"])
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(
            f"{path} is not a valid {ALGORITHM} signature of vlmc ({error!r}); get the artifact "
            "again"
        ) from error


def _private_key(path: Path) -> Ed25519PrivateKey:
    data = _pem(path)
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(data, password=None)
    except TypeError as error:
        raise UsageError(
            f"{path} is protected by a password, which vlmc does not ask for. Write it without "
            f"one for the moment of signing: openssl pkey -in {path} -out plain.pem"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{path} holds no private key in PEM ({error}). {_MAKE_KEYS}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{path} holds a private key of another kind than Ed25519. {_MAKE_KEYS}")
    return key


def _public_key(path: Path) -> Ed25519PublicKey:
    data = _pem(path)
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if b"PRIVATE KEY" in data:
        raise UsageError(
            f"{path} is a private key. Give the public half, and keep this one with the signer: "
            f"openssl pkey -in {path} -pubout -out key.pub.pem"
        )
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{path} holds no public key in PEM ({error}). {_MAKE_KEYS}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"{path} holds a public key of another kind than Ed25519. {_MAKE_KEYS}")
    return key


def _pem(path: Path) -> bytes:
    """The file's bytes, once it is known that the library to read them is there."""
    try:
        import cryptography  # noqa: F401
    except ModuleNotFoundError as error:
        raise UsageError(
            "signatures need the package cryptography, which is not installed: "
            f"{install_command('sign')}"
        ) from error
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})") from error
