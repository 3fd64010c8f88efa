"""Installed packages behind the engines."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from vlmc.distribution import install_command
from vlmc.machine.packages import MIN_DRIVER, PACKAGES, EnginePackage


def test_installed_version_is_told() -> None:
    assert PACKAGES["onnxruntime"].version == version("onnxruntime")
    assert PACKAGES["inductor"].version == version("torch")
    missing = EnginePackage("nothing", ("vlmc-nothing",))
    assert missing.version is None
    assert missing.cuda is None


def test_name_tells_the_cuda_version(monkeypatch: pytest.MonkeyPatch) -> None:
    package = EnginePackage("torch", ("vlmc-nothing-cu12", "torch-cu13"))
    monkeypatch.setattr(
        "vlmc.machine.packages.version", lambda name: version(name.removesuffix("-cu13"))
    )
    assert package.cuda == "13"
    assert MIN_DRIVER[package.cuda] == 580
    assert package.version == version("torch")


def test_install_command_names_the_extra_and_its_index() -> None:
    assert PACKAGES["tensorrt-rtx"].install == install_command("tensorrt-rtx")
    assert PACKAGES["tensorrt"].install == (
        f"{install_command('tensorrt')}; add --extra-index-url https://pypi.nvidia.com"
    )
    assert PACKAGES["onnxruntime"].install.startswith("pip install onnxruntime")
