"""The verbs that look at finished artifacts: what they print, and how they end."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.artifact.keys import make_keys
from tests.command import call
from vlmc.artifact.identity import IDENTITY
from vlmc.artifact.integrity import open_artifact
from vlmc.artifact.manifest import MANIFEST, read_manifest
from vlmc.artifact.summary import summarize
from vlmc.artifact.write import seal


@pytest.fixture
def copied(artifact: Path, tmp_path: Path) -> Path:
    """An artifact that a test may damage."""
    return shutil.copytree(artifact, tmp_path / "artifact")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_inspect(copied: Path, tmp_path: Path) -> None:
    opened = open_artifact(copied)
    (tmp_path / "link").symlink_to(copied)
    told = json.loads(call("inspect", tmp_path / "link", "--json").stdout)
    assert (told["artifact"], told["identity"]) == (str(copied), opened.identity)
    assert told["manifest"] == json.loads((copied / MANIFEST).read_text())
    assert told["accuracy"] == "not_run"
    assert told["engines"] == [
        told["manifest"]["engines"][0]
        | {
            "bytes": (copied / "vision/model.onnx").stat().st_size,
            "layers": None,
            "products": None,
            "min_driver": None,
            "accuracy": "not_run",
        }
    ]
    assert told["payload_bytes"] == sum(told["sizes"].values())
    assert set(told["sizes"]) == {"language", "recipe.yaml", "vision"}
    assert (told["signed"], told["identity_recorded"]) == (False, True)
    text = call("inspect", copied).stdout
    for part in (opened.identity, "onnxruntime for cpu, fp32", "not_run", "internlm2-chat"):
        assert part in text
    flip(copied / "vision" / "model.onnx")
    assert call("inspect", copied).exit_code == 0, "hashes are checked by verify integrity"
    (copied / "vision" / "golden.npz").unlink()
    result = call("inspect", copied)
    assert (result.exit_code, result.stdout) == (4, "")
    assert "lacks vision/golden.npz" in result.stderr


def test_inspect_tells_of_the_graph_beside_engines_for_gpus(artifact: Path) -> None:
    summary = summarize(artifact)
    assert summary.to_json()["bundled_graph"] is None
    (engine,) = summary.manifest.engines
    engine = replace(engine, engine="tensorrt", target="sm89", file="vision/sm89.plan")
    beside = replace(summary, manifest=replace(summary.manifest, engines=(engine,)))
    assert beside.to_json()["bundled_graph"] == "vision/model.onnx"
    (line,) = [line for line in beside.lines() if line.startswith("graph")]
    assert (
        line.split(maxsplit=1)[1] == "onnxruntime for cpu, fp32, vision/model.onnx; taken on a CPU"
    )


def test_inspect_lists_layers_of_plans_or_says_why_not(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = call("inspect", copied, "--layers")
    assert "no TensorRT plans" in without.stdout
    manifest, file = read_manifest(copied), "vision/tensorrt-rtx-sm89.engine"
    (copied / file).write_bytes(b"a plan")
    (copied / IDENTITY).unlink()
    record = replace(manifest.engines[0], engine="tensorrt-rtx", target="sm89", file=file)
    seal(copied, replace(manifest, payload={}, engines=(record,)))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    values = json.loads(call("inspect", copied, "--layers", "--json").stdout)
    (plan,) = values["plans"]
    assert (plan["file"], plan["layers"]) == (file, None)
    assert "no GPU" in plan["reason"] or "not installed" in plan["reason"]
    assert "plans" not in json.loads(call("inspect", copied, "--json").stdout)
    flip(copied / file)
    assert call("inspect", copied, "--layers").exit_code == 4, "a plan is native code"


def test_verify_integrity(copied: Path) -> None:
    told = json.loads(call("verify", "integrity", copied, "--json").stdout)
    opened = open_artifact(copied)
    assert told == {
        "artifact": str(copied),
        "identity": opened.identity,
        "identity_recorded": True,
        "files": len(opened.manifest.payload),
        "bytes": sum(entry.size for entry in opened.manifest.payload.values()),
        "signature": None,
    }
    result = call("verify", "integrity", copied)
    assert result.exit_code == 0
    assert opened.identity in result.stdout
    flip(copied / "vision" / "model.onnx")
    for flags in ((), ("--json",)):
        result = call("verify", "integrity", copied, *flags)
        assert (result.exit_code, result.stdout) == (4, "")
        assert "model.onnx has SHA-256" in result.stderr


def test_an_artifact_of_an_earlier_version_says_what_is_not_checked(copied: Path) -> None:
    (copied / IDENTITY).unlink()
    for verb in (("inspect",), ("verify", "integrity")):
        result = call(*verb, copied)
        assert result.exit_code == 0
        assert "not recorded: an earlier version of vlmc built" in result.stdout + result.stderr
        told = json.loads(call(*verb, copied, "--json").stdout)
        assert told["identity_recorded"] is False


def test_sign_and_verify(copied: Path, tmp_path: Path) -> None:
    private, public = make_keys(tmp_path)
    _, other = make_keys(tmp_path, "other")
    unsigned = call("verify", "integrity", copied, "--public-key", public)
    assert unsigned.exit_code == 4
    assert "is not signed" in unsigned.stderr
    result = call("sign", copied, "--key", private)
    assert result.exit_code == 0
    assert result.stdout == f"{copied}/reports/signature.json\n"
    told = json.loads(call("sign", copied, "--key", private, "--json").stdout)
    assert told["identity"] == open_artifact(copied).identity
    good = call("verify", "integrity", copied, "--public-key", public, "--json")
    assert json.loads(good.stdout)["signature"] == "valid"
    assert json.loads(call("inspect", copied, "--json").stdout)["signed"] is True
    wrong = call("verify", "integrity", copied, "--public-key", other)
    assert wrong.exit_code == 4
    assert "does not hold that key" in wrong.stderr
    assert call("sign", copied, "--key", tmp_path / "none").exit_code == 2
    values = json.loads((copied / MANIFEST).read_text())
    values["name"] = "tampered"
    (copied / MANIFEST).write_text(json.dumps(values))
    (copied / IDENTITY).unlink()
    tampered = call("verify", "integrity", copied, "--public-key", public)
    assert tampered.exit_code == 4
    assert "changed or exchanged after it was signed" in tampered.stderr


def test_nothing_damaged_is_signed(copied: Path, tmp_path: Path) -> None:
    private, _ = make_keys(tmp_path)
    flip(copied / "vision" / "model.onnx")
    assert call("sign", copied, "--key", private).exit_code == 4
    assert not (copied / "reports" / "signature.json").exists()
