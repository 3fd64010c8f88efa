"""The trial of the C++ compiler, with compilers that fail in every way, and the message on each."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._inductor import config
from torch._inductor.exc import CppCompileError

from vlmc.compile.engines import cpp_compiler
from vlmc.compile.engines.cpp_compiler import explain, try_compiler
from vlmc.compile.engines.inductor import compile_tower
from vlmc.errors import BuildError

GPP = shutil.which("g++")
pytestmark = pytest.mark.skipif(GPP is None, reason="g++ is not installed")

# What each does when it compiles (-c) or links; everything else is g++'s.
FAILS_TO_COMPILE = """case " $* " in *" -c "*)
  echo "In file included from trial.cpp:1:" >&2
  echo "trial.cpp:1:10: fatal error: stdexcept: No such file or directory" >&2
  for line in $(seq 500); do echo "note: line $line" >&2; done; exit 1;; esac"""
# Nothing of torch's headers, which take a second.
COMPILES = """case " $* " in *" --version "*) ;; *" -c "*)
  echo 'extern "C" int vlmc_trial(int number) { delete new int; return number; }' |
  exec g++ -x c++ -fPIC -c -o "${@: -1}" -;;"""
FAILS_TO_LINK = f"""{COMPILES} *)
  echo "/usr/bin/ld: cannot find -lstdc++: No such file or directory" >&2
  echo "collect2: error: ld returned 1 exit status" >&2; exit 1;; esac"""
LINKS_STATICALLY = f'{COMPILES} *) exec g++ "$@" -static-libstdc++;; esac'
HIDES_SYMBOLS = f"""{COMPILES} *)
  exec g++ "$@" -Wl,--version-script=/dev/stdin <<< "{{ local: *; }};";; esac"""


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """No compiler has been tried yet."""
    cpp_compiler._try.cache_clear()
    yield
    cpp_compiler._try.cache_clear()


def compiler(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f'#!/bin/bash\n{script}\nexec g++ "$@"\n')
    path.chmod(0o755)
    return path


def said(cxx: object) -> str:
    with config.patch({"cpp.cxx": (None, str(cxx))}), pytest.raises(BuildError) as caught:
        try_compiler("cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_compiler_that_serves_is_tried_once(tmp_path: Path) -> None:
    count = tmp_path / "count"
    good = compiler(tmp_path, "good", f"echo x >> {count}")
    with config.patch({"cpp.cxx": (None, str(good))}):
        try_compiler("cpu")
        runs = len(count.read_text())
        try_compiler("cpu")
    assert len(count.read_text()) == runs


def test_one_that_cannot_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    bad = compiler(tmp_path, "bad", FAILS_TO_COMPILE)
    monkeypatch.setenv("CXX", str(bad))
    told = said(bad)
    log = tmp_path / "caches/vlmc/logs/inductor-compiler.log"
    assert told == (
        f"the C++ compiler {bad} cannot compile a trial program: trial.cpp:1:10: fatal error: "
        f"stdexcept: No such file or directory. The environment sets CXX={bad}: unset it to use "
        "g++, or set it to a compiler that links the shared libstdc++, as torch does. Full log: "
        f"{log}"
    )
    kept = log.read_text()
    assert str(bad) in kept and "note: line 500" in kept and torch.__version__ in kept


def test_one_that_cannot_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    told = said(compiler(tmp_path, "bad", FAILS_TO_LINK))
    assert "cannot link a trial program: /usr/bin/ld: cannot find -lstdc++" in told
    assert "Install g++ with its libstdc++" in told
    assert "CXX=" not in told


def test_one_that_links_the_runtime_statically(tmp_path: Path) -> None:
    told = said(compiler(tmp_path, "static", LINKS_STATICALLY))
    assert "static: a trial library contains libstdc++" in told
    assert "if its specs say so" in told


def test_one_whose_library_lacks_what_was_compiled(tmp_path: Path) -> None:
    told = said(compiler(tmp_path, "hides", HIDES_SYMBOLS))
    assert "cannot make a library that can be loaded: " in told
    assert "vlmc_trial" in told


@pytest.mark.parametrize("what", ["missing", "not executable", "arguments"])
def test_one_that_cannot_be_run(what: str, tmp_path: Path) -> None:
    path = tmp_path / "cxx"
    if what == "not executable":
        compiler(tmp_path, "cxx", "").chmod(0o644)
    told = said("ccache g++" if what == "arguments" else path)
    assert "which cannot be run." in told
    assert ("must name one program, without arguments" in told) == (what == "arguments")


def test_a_failed_compilation_is_one_sentence_and_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As inductor raises it: the compiler's error inside its own, below frames of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    class Tower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("positions", torch.zeros(1))

        def forward(self, tiles: torch.Tensor) -> torch.Tensor:
            return tiles.float().mean((1, 2, 3)) + self.positions

    output = "note: much\nkernel.cpp:7:1: error: expected ';'\n" + "note: more\n" * 300

    def fails(*_: Any, **__: Any) -> None:
        try:
            raise CppCompileError(["g++", "kernel.cpp"], output)
        except CppCompileError as error:
            raise RuntimeError("InductorError: many\nlines") from error

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", fails)
    tower: Any = Tower()
    with pytest.raises(
        BuildError, match="g\\+\\+ cannot compile the vision tower: kernel"
    ) as caught:
        compile_tower(tower, tmp_path / "tower.pt2", opt_tiles=2)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    assert "Run the same command again" in str(caught.value)
    assert (tmp_path / "vlmc/logs/inductor-compiler.log").read_text().count("note: more") == 300


def test_another_failure_of_torch_keeps_its_reason() -> None:
    error = explain(RuntimeError("no kernel image\nframe #0"), "the vision tower")
    assert str(error).startswith("torch cannot compile the vision tower: no kernel image.")
