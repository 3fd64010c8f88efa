"""Key pairs for signatures."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)


def make_keys(
    folder: Path, name: str = "key", kind: type[Ed25519PrivateKey | X25519PrivateKey] | None = None
) -> tuple[Path, Path]:
    """PEM files of a private key and of its public half, as OpenSSL would write them."""
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    key = (kind or Ed25519PrivateKey).generate()
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public
