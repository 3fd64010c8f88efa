"""Signatures that hold, and all that must not pass for one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)

from tests.artifact.conftest import manifest, write_payload
from tests.artifact.keys import make_keys
from vlmc.artifact.integrity import open_artifact
from vlmc.artifact.signature import SIGNATURE, check_signature, sign
from vlmc.artifact.write import seal
from vlmc.distribution import install_command
from vlmc.errors import IntegrityError, UsageError

OPENSSL = shutil.which("openssl")


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return make_keys(tmp_path)


@pytest.fixture
def signed(made: Path, keys: tuple[Path, Path]) -> Path:
    sign(open_artifact(made), keys[0])
    return made


def refused(folder: Path, public: Path) -> str:
    with pytest.raises(IntegrityError) as caught:
        check_signature(open_artifact(folder), public)
    assert caught.value.exit_code == 4
    return str(caught.value)


def edit(folder: Path, **changes: Any) -> None:
    path = folder / SIGNATURE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_signature_holds_wherever_the_artifact_goes(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    identity = open_artifact(signed).identity
    moved = shutil.copytree(signed, tmp_path / "moved")
    check_signature(open_artifact(moved), keys[1])
    assert open_artifact(moved).identity == identity, "it is no part of the payload"
    assert sorted(path.name for path in (moved / "reports").iterdir()) == [
        "build.json",
        "signature.json",
    ]


@pytest.mark.skipif(OPENSSL is None, reason="the documented commands are OpenSSL's")
def test_openssl_agrees(made: Path, tmp_path: Path) -> None:
    """It makes keys that vlmc takes, and checks vlmc's signature without vlmc."""

    def openssl(*arguments: object) -> None:
        command = [str(OPENSSL), *map(str, arguments)]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    openssl("genpkey", "-algorithm", "ed25519", "-out", "key.pem")
    openssl("pkey", "-in", "key.pem", "-pubout", "-out", "key.pub.pem")
    artifact = open_artifact(made)
    values = json.loads(sign(artifact, tmp_path / "key.pem").read_text())
    check_signature(artifact, tmp_path / "key.pub.pem")
    (tmp_path / "message").write_text(f"vlmc artifact identity\n{artifact.identity}")
    (tmp_path / "signature").write_bytes(bytes.fromhex(values["signature"]))
    check = ["-verify", "-pubin", "-inkey", "key.pub.pem", "-rawin"]
    openssl("pkeyutl", *check, "-in", "message", "-sigfile", "signature")


def test_without_signature(made: Path, keys: tuple[Path, Path]) -> None:
    assert "is not signed: there is no reports/signature.json" in refused(made, keys[1])


def test_another_key(signed: Path, tmp_path: Path) -> None:
    _, other = make_keys(tmp_path, "other")
    assert "does not hold that key" in refused(signed, other)


def test_a_key_put_in_place_of_the_signers(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    """An attacker signs with his key and writes the expected one beside the signature."""
    honest = json.loads((signed / SIGNATURE).read_text())["public_key"]
    private, _ = make_keys(tmp_path, "attacker")
    sign(open_artifact(signed), private)
    edit(signed, public_key=honest)
    assert "damaged or forged" in refused(signed, keys[1])


def test_a_signature_of_another_artifact(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    other = write_payload(tmp_path / "other")
    (other / "vision/model.onnx").write_text("malicious")
    seal(other, manifest())
    shutil.copy(signed / SIGNATURE, other / SIGNATURE)
    assert "changed or exchanged after it was signed" in refused(other, keys[1])
    edit(other, identity=open_artifact(other).identity)
    assert "damaged or forged" in refused(other, keys[1])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 60_000,
        b" " * (1 << 17),
        b'{"algorithm": "rsa"}',
        b'{"algorithm": "ed25519", "identity": 1, "public_key": "", "signature": ""}',
        b'{"algorithm": "ed25519", "identity": "", "public_key": "x", "signature": ""}',
        b'{"algorithm": "ed25519", "identity": "", "public_key": 7, "signature": ""}',
    ],
    ids=lambda content: f"{content[:12]!r}",
)
def test_what_is_no_signature(content: bytes, signed: Path, keys: tuple[Path, Path]) -> None:
    (signed / SIGNATURE).write_bytes(content)
    assert "is not a valid ed25519 signature of vlmc" in refused(signed, keys[1])


def test_a_damaged_signature(signed: Path, keys: tuple[Path, Path]) -> None:
    edit(signed, signature="00" * 64)
    assert "damaged or forged" in refused(signed, keys[1])
    edit(signed, signature="00")
    assert "damaged or forged" in refused(signed, keys[1])


def test_signing_again_replaces(signed: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    private, public = make_keys(tmp_path, "second")
    sign(open_artifact(signed), private)
    check_signature(open_artifact(signed), public)
    assert "does not hold that key" in refused(signed, keys[1])


def test_reports_that_lead_elsewhere_are_not_written(
    made: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    shutil.rmtree(made / "reports")
    (tmp_path / "elsewhere").mkdir()
    (made / "reports").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IntegrityError, match="is a link"):
        sign(open_artifact(made), keys[0])
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_keys_that_are_none(made: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    private, public = keys
    artifact = open_artifact(made)
    other_private, other_public = make_keys(tmp_path, "x25519", X25519PrivateKey)
    locked = tmp_path / "locked.pem"
    secret = Ed25519PrivateKey.generate()
    password = BestAvailableEncryption(b"x")
    locked.write_bytes(secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, password))
    (tmp_path / "empty").write_bytes(b"")
    for key, said in {
        tmp_path / "none.pem": "cannot be read",
        tmp_path: "cannot be read",
        tmp_path / "empty": "holds no private key in PEM",
        public: "holds no private key in PEM",
        other_private: "of another kind than Ed25519",
        locked: "is protected by a password",
    }.items():
        with pytest.raises(UsageError, match=said):
            sign(artifact, key)
    sign(artifact, private)
    for key, said in {
        tmp_path / "none.pem": "cannot be read",
        tmp_path / "empty": "holds no public key in PEM",
        private: "is a private key. Give the public half",
        other_public: "of another kind than Ed25519",
    }.items():
        with pytest.raises(UsageError, match=said):
            check_signature(artifact, key)


def test_without_the_package(
    signed: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    for attempt in (
        lambda: sign(open_artifact(signed), keys[0]),
        lambda: check_signature(open_artifact(signed), keys[1]),
    ):
        with pytest.raises(UsageError, match=re.escape(install_command("sign"))):
            attempt()
