"""The rules of the house, checked on the source itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import vlmc

PACKAGE = Path(vlmc.__file__).parent
ROOT = PACKAGE.parent
MODULES = sorted(PACKAGE.rglob("*.py"))
# Tests write what attackers would, so they may use what vlmc must not.
SOURCES = [*MODULES, *sorted((ROOT / "recipes").rglob("*.py"))]
MAX_LINES = 400

GROUND = {
    *("errors", "input_file", "machine", "recipe", "checkpoint", "text", "image", "models"),
    "artifact",
}
COMPILE_WING = {"compile", "build"}
RUNTIME_WING = {"runtime", "verify", "bench", "jobs"}
TOP = {
    *("cli", "command", "artifact_commands", "verify_commands", "progress"),
    *("__main__", "__init__"),
}
# Part of vlmc → parts that it never imports.
FORBIDDEN = {
    **{part: COMPILE_WING | RUNTIME_WING | TOP for part in GROUND},
    **{part: RUNTIME_WING | TOP for part in COMPILE_WING},
    "runtime": COMPILE_WING | TOP | {"recipe", "verify", "bench", "jobs"},
    "verify": COMPILE_WING | TOP | {"jobs"},
    "bench": COMPILE_WING | TOP,
    "jobs": COMPILE_WING | TOP | {"recipe"},
}
# Other people's modelling and quantization code has no place where vlmc's own does the work.
NO_FRAMEWORKS = GROUND | {"runtime", "jobs"}
FRAMEWORKS = {"transformers", "compressed_tensors", "llmcompressor", "timm", "vllm", "lmdeploy"}
RUNS_CODE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
# What the top may import of vlmc before a verb runs.
LIGHT = {
    *("vlmc", "vlmc.artifact_commands", "vlmc.cli", "vlmc.command", "vlmc.errors"),
    "vlmc.verify_commands",
}
# What the command line may not import before a verb runs.
HEAVY = {"torch", "onnx", "onnxscript", "onnxruntime", "pydantic", "yaml", "cv2", "PIL", "rich"}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def part_of(path: Path) -> str:
    """The part of vlmc that a module belongs to: its package, or its own name at the top."""
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that a module imports, wherever in it."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def own_part(name: str) -> str | None:
    """The part of vlmc that a dotted name leads to."""
    parts = name.split(".")
    if parts[0] != "vlmc":
        return None
    below = parts[1] if len(parts) > 1 else "__init__"
    known = (PACKAGE / below).is_dir() or (PACKAGE / f"{below}.py").exists()
    return below if known else "__init__"


def at(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def test_imports_run_down() -> None:
    offenders = []
    for path in MODULES:
        part = part_of(path)
        assert part in FORBIDDEN or part in TOP, f"{part} is new: say above what it may import"
        for line, name in imported(path):
            # The version is the one thing at the top that everybody may know.
            if name not in ("vlmc", "vlmc.__version__") and own_part(name) in FORBIDDEN.get(
                part, ()
            ):
                offenders.append(f"{at(path, line)} imports {name}")
    assert offenders == []


def test_the_walk_sees_imports() -> None:
    """Of a kind each, so that an empty walk cannot pass for a clean one."""
    cli = {name for _, name in imported(PACKAGE / "cli.py")}
    assert {"click", "pathlib.Path", "vlmc.errors.UsageError", "vlmc.runtime.load.load"} <= cli
    assert own_part("vlmc.runtime.load.load") == "runtime"
    assert own_part("vlmc.errors.VlmcError") == "errors"
    assert own_part("vlmc.load") == "__init__"
    assert own_part("torch.nn") is None
    assert {part_of(path) for path in MODULES} >= GROUND | COMPILE_WING | {"runtime", "jobs"}


def test_frameworks_stay_out() -> None:
    offenders = [
        f"{at(path, line)} imports {name}"
        for path in MODULES
        if part_of(path) in NO_FRAMEWORKS
        for line, name in imported(path)
        if name.split(".")[0] in FRAMEWORKS
    ]
    assert offenders == []


@pytest.mark.parametrize(
    "name",
    [
        *("__init__.py", "__main__.py", "artifact_commands.py", "cli.py", "command.py"),
        *("errors.py", "verify_commands.py"),
    ],
)
def test_the_top_imports_nothing_heavy(name: str) -> None:
    """At import; the bodies of the verbs import what they need."""
    for node in tree_of(PACKAGE / name).body:
        modules = (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
        for module in modules:
            assert module.split(".")[0] not in HEAVY, module
            assert module in LIGHT or not module.startswith("vlmc")


def test_nothing_runs_code_from_files() -> None:
    offenders = []
    for path in SOURCES:
        for line, name in imported(path):
            if name.split(".")[0] in RUNS_CODE:
                offenders.append(f"{at(path, line)} imports {name}")
        for node in ast.walk(tree_of(path)):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if (
                called in ("eval", "exec", "os.system", "yaml.load", "yaml.unsafe_load")
                or "trust_remote_code" in given
                or (called == "torch.load" and given.get("weights_only") != "True")
                or (called == "np.load" and given.get("allow_pickle", "False") != "False")
                or given.get("shell") == "True"
            ):
                offenders.append(f"{at(path, node.lineno)} calls {called}")
    assert offenders == []


def test_modules_are_short_and_say_what_they_are() -> None:
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= MAX_LINES, path
        if text.strip():
            assert ast.get_docstring(tree_of(path)), f"{path}: a module begins with what it is"


def test_public_names_say_what_they_do() -> None:
    offenders = [
        f"{at(path, node.lineno)}: {node.name}"
        for path in MODULES
        for node in tree_of(path).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert offenders == []


def test_asserts_check_no_input() -> None:
    """`assert` is for what cannot happen, and python -O drops it: vlmc has none."""
    offenders = [
        at(path, node.lineno)
        for path in MODULES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Assert)
    ]
    assert offenders == []


def test_every_folder_of_modules_is_a_package() -> None:
    for folder in {path.parent for path in MODULES}:
        assert (folder / "__init__.py").exists(), folder
    assert (PACKAGE / "py.typed").exists()


def test_environment_is_not_read_at_import() -> None:
    offenders = [
        at(path, inner.lineno)
        for path in MODULES
        for node in tree_of(path).body
        if not isinstance(node, ast.FunctionDef | ast.ClassDef)
        for inner in ast.walk(node)
        if isinstance(inner, ast.Attribute) and inner.attr in ("environ", "getenv")
    ]
    assert offenders == []
