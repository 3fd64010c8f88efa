"""The wheel, the sdist and an editable install, each tried in an environment of its own.

The environments take the dependencies of the environment that runs the tests, and nothing of vlmc.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from vlmc.distribution import DISTRIBUTION
from vlmc.version import __version__

ROOT = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "MANIFEST.in", "README.md", "CHANGELOG.md", "LICENSE")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
FROM_SOURCE = ("--no-deps", "--no-build-isolation", "--no-index")
pytestmark = pytest.mark.xdist_group("distribution")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a distribution is made from, in a folder named vlmc as a clone's would be."""
    folder = tmp_path_factory.mktemp("sources") / "vlmc"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "vlmc", folder / "vlmc", ignore=ignore)
    for name in SOURCES:
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def sdist(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    make = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    run(sys.executable, "-c", make, str(folder), cwd=clone)
    return folder / f"vlm_compiler-{__version__}.tar.gz"


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sdist so that both are known to be complete."""
    folder = tmp_path_factory.mktemp("wheel")
    run(*PIP, "wheel", *FROM_SOURCE, "--wheel-dir", str(folder), str(sdist), cwd=folder)
    return folder / f"vlm_compiler-{__version__}-py3-none-any.whl"


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of an environment with the wheel."""
    return install(tmp_path_factory.mktemp("installed") / "env", str(wheel))


def run(*command: str, cwd: Path) -> str:
    """The standard output of a command that must succeed, run without PYTHONPATH."""
    done = subprocess.run(
        command, cwd=cwd, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def install(environment: Path, *arguments: str) -> Path:
    """Make an environment, install into it, and return its `bin` folder."""
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    (packages,) = environment.glob("lib/python*/site-packages")
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    # A line of a .pth file adds a folder without reading the folder's own .pth files, which is how
    # the vlmc that runs the tests stays out.
    (packages / "dependencies.pth").write_text("".join(f"{path}\n" for path in sorted(paths)))
    run(*PIP, "--python", str(python), "install", *FROM_SOURCE, *arguments, cwd=environment)
    return environment / "bin"


def test_wheel_holds_the_package_and_its_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(f"vlm_compiler-{__version__}.dist-info/METADATA").decode()
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "vlmc").rglob("*.py")}
    information = {name for name in names if ".dist-info/" in name}
    assert names - information == {*modules, "vlmc/py.typed"}
    assert any(name.endswith("/licenses/LICENSE") for name in information)
    for line in (f"Name: {DISTRIBUTION}", f"Version: {__version__}", "License-Expression: Apache"):
        assert line in metadata


def test_sdist_holds_the_sources_alone(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= {*SOURCES, "vlmc/py.typed"}
    assert not any(name.startswith("tests") for name in names)


def test_wheel_shows_help_and_loads_an_artifact(
    installed: Path, artifact: Path, images: Path, tmp_path: Path
) -> None:
    assert "Usage: vlmc" in run(str(installed / "vlmc"), "--help", cwd=tmp_path)
    script = (
        "import sys, vlmc\n"
        "with vlmc.load(sys.argv[1], device='cpu') as model:\n"
        "    (answer,) = model.generate([(sys.argv[2], 'What is it?')], max_new_tokens=2)\n"
        "print(vlmc.__file__)\n"
        "print(answer.image_tokens)\n"
    )
    image = str(sorted(images.glob("*.jpg"))[0])
    said = run(str(installed / "python"), "-c", script, str(artifact), image, cwd=tmp_path)
    file, tokens = said.splitlines()
    assert Path(file).is_relative_to(installed.parent)
    assert int(tokens) % 256 == 0


def test_wheel_names_itself_in_hints(installed: Path, wheel: Path, tmp_path: Path) -> None:
    assert hint(installed, tmp_path) == f"pip install 'vlm-compiler[build] @ {wheel.as_uri()}'"


def test_script_beside_the_clone_imports_the_package(clone: Path, tmp_path: Path) -> None:
    programs = install(tmp_path / "env", "--editable", str(clone))
    script = clone.parent / "script.py"
    script.write_text("import vlmc\nprint(vlmc.__version__, vlmc.__file__)\n")
    expected = f"{__version__} {clone / 'vlmc' / '__init__.py'}\n"
    assert run(str(programs / "python"), str(script), cwd=tmp_path) == expected
    assert hint(programs, tmp_path) == f"pip install -e '.[build]' (in {clone})"


def hint(programs: Path, folder: Path) -> str:
    """What a message about a missing package says in an environment."""
    script = "from vlmc.distribution import install_command as c; print(c('build'))"
    return run(str(programs / "python"), "-c", script, cwd=folder).strip()
