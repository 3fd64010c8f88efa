"""The C++ compiler that AOTInductor uses, tried in seconds before a build of minutes."""

from __future__ import annotations

import ctypes
import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch._inductor import config, cpp_builder
from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

from vlmc.errors import BuildError
from vlmc.machine.user_cache import user_cache, write_private

_SOURCE = """\
#include <stdexcept>
#include <string>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#ifdef USE_CUDA
#include <cuda.h>
#endif
extern "C" int vlmc_trial(int number) {
  try {
    throw std::runtime_error(std::to_string(number));
  } catch (const std::runtime_error& error) {
    return std::stoi(error.what());
  }
}
"""
_ANSWER = 42
_ERROR = re.compile(r"\berror\b|cannot find|undefined reference|not found", re.IGNORECASE)
_SUMMARY = re.compile(r"collect2: error|linker command failed|ld returned")
_MAX_LINE = 300
_SHARED_RUNTIME = b"libstdc++.so"
# torch 2.11 was seen to write such C++ once, while other programs used the same GPU.
_AGAIN = (
    "A trial program compiled before, so torch may have written C++ that is not valid. Run the "
    "same command again, with nothing else on the GPU; finished steps are kept."
)


def try_compiler(device_type: str) -> None:
    """Compile, link and load a few lines of C++ as AOTInductor does for `cpu` or `cuda`.

    Takes about two seconds, once a process.

    Raises:
        BuildError: the compiler is missing, fails, or makes libraries that torch cannot load.
    """
    _try(device_type, str(config.cpp.cxx[-1]))


def has_shared_runtime(library: bytes) -> bool:
    """Whether a library links the shared libstdc++. With a second copy of the C++ runtime beside
    torch's, loading it crashes."""
    return _SHARED_RUNTIME in library


def explain(error: BaseException, what: str) -> BuildError:
    """The error to raise if torch's compiler failed, with its first error line and a full log.

    `what` names what could not be compiled.
    """
    chain = list(_causes(error))
    for cause in chain:
        if isinstance(cause, CppCompileError):
            return _failed(shlex.join(cause.cmd), str(cause.output), f"compile {what}", _AGAIN)
    log = _write_log("\n\n".join(f"{type(cause).__name__}: {cause}" for cause in chain))
    first = str(chain[-1]).strip().partition("\n")[0][:_MAX_LINE] or type(chain[-1]).__name__
    return BuildError(f"torch cannot compile {what}: {first}.{log}")


@cache
def _try(device_type: str, compiler: str) -> None:
    with TemporaryDirectory(prefix="vlmc-trial-") as name:
        folder = Path(name)
        source = folder / "trial.cpp"
        source.write_text(_SOURCE, encoding="ascii")
        object_file = _build(device_type, compiler, [source], compile_only=True)
        library = _build(device_type, compiler, [object_file], compile_only=False)
        if not has_shared_runtime(library.read_bytes()):
            raise BuildError(static_runtime(f"{compiler}: a trial library"))
        try:
            answer = ctypes.CDLL(str(library)).vlmc_trial(_ANSWER)
        except (OSError, AttributeError) as error:
            raise _failed(str(library), str(error), "make a library that can be loaded") from error
        if answer != _ANSWER:
            raise BuildError(
                f"{compiler} makes wrong code: a trial returns {answer}, not {_ANSWER}. {remedy()}"
            )


def _build(device_type: str, compiler: str, sources: Sequence[Path], *, compile_only: bool) -> Path:
    """Compile or link in the folder of the sources and return the output file."""
    try:
        options = cpp_builder.CppTorchDeviceOptions(
            device_type=device_type, aot_mode=True, compile_only=compile_only
        )
    except (InvalidCxxCompiler, PermissionError) as error:
        spaces = " CXX must name one program, without arguments." if " " in compiler else ""
        raise BuildError(
            f"inductor needs the C++ compiler {compiler}, which cannot be run.{spaces} {remedy()}"
        ) from error
    except OSError as error:
        raise BuildError(
            f"torch cannot set up the C++ compiler {compiler} for {device_type}: {error}. If "
            "CUDA's headers are missing, install the CUDA toolkit or set CUDA_HOME to it. "
            f"{remedy()}"
        ) from error
    builder = cpp_builder.CppBuilder(
        name="trial",
        sources=[str(source) for source in sources],
        output_dir=str(sources[0].parent),
        BuildOption=options,
    )
    command = shlex.split(builder.get_command_line())
    ended = subprocess.run(
        command,
        cwd=sources[0].parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    target = Path(builder.get_target_file_path())
    if ended.returncode != 0 or not target.is_file():
        output = ended.stdout.decode("utf-8", errors="replace")
        verb = "compile" if compile_only else "link"
        raise _failed(shlex.join(command), output, f"{verb} a trial program")
    return target


def static_runtime(what: str) -> str:
    """The message for a compiler that links libstdc++ statically into `what`."""
    return (
        f"{what} contains libstdc++: the C++ compiler links it statically, and torch cannot load "
        f"such a library beside its own. {remedy()} A compiler links it statically if its specs "
        "say so, or if libstdc++.so is missing beside the file that "
        "`g++ -print-file-name=libstdc++.a` names."
    )


def remedy() -> str:
    """What to do about a C++ compiler that does not work, by where it was named."""
    inherited = os.environ.get("CXX")
    if inherited:
        return (
            f"The environment sets CXX={inherited}: unset it to use g++, or set it to a compiler "
            "that links the shared libstdc++, as torch does."
        )
    return "Install g++ with its libstdc++ (such as apt install g++), or name a compiler in CXX."


def _failed(command: str, output: str, what: str, advice: str = "") -> BuildError:
    log = _write_log(f"{command}\n\n{output}")
    reason = f"{shlex.split(command)[0]} cannot {what}: {_first_error(output)}"
    return BuildError(f"the C++ compiler {reason}. {advice or remedy()}{log}")


def _first_error(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if _ERROR.search(line)]
    # The linker's own reason comes before the driver's summary of it.
    reasons = [line for line in errors if not _SUMMARY.search(line)] or errors or lines
    return reasons[0][:_MAX_LINE].rstrip(".") if reasons else "it printed no reason"


def _write_log(text: str) -> str:
    """Keep a compiler's output and return the sentence that names the file."""
    path = user_cache("logs") / "inductor-compiler.log"
    write_private(path, f"torch {torch.__version__}\n{text}\n".encode())
    return f" Full log: {path}" if path.is_file() else ""


def _causes(error: BaseException | None) -> list[BaseException]:
    """The error and its causes, the first cause last."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = getattr(error, "inner_exception", None) or error.__cause__ or error.__context__
    return found
