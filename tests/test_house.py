"""The rules of the house, checked on the source itself."""

from __future__ import annotations

import ast
import re
import statistics
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

import vlmc

PACKAGE = Path(vlmc.__file__).parent
ROOT = PACKAGE.parent
MODULES = sorted(PACKAGE.rglob("*.py"))
# Tests write what attackers would, so they may use what vlmc must not.
SOURCES = [*MODULES, *sorted((ROOT / "recipes").rglob("*.py"))]
BENCHMARKS = sorted((ROOT / "benchmarks").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
MAX_LINES = 400
MAX_MEDIAN_LINES = 110
# Folders of tests/ that belong to no folder of vlmc/.
ACROSS = {"attacks", "data", "exactness", "gpu", "miniature", "mutants", "recipes"}

# Rooms from the ground up. A room imports rooms of lower floors only.
FLOORS: tuple[set[str], ...] = (
    {"errors", "version", "distribution", "files", "progress", "report"},
    {"machine", "image", "text"},
    {"checkpoint", "artifact"},
    {"distributed"},
    {"models", "recipe"},
    {"compile", "runtime"},
    {"bench", "builder", "export", "jobs", "verify", "__init__"},
    {"cli"},
    {"__main__"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS, 1) for room in rooms}
COMPILE_WING = {"compile", "builder", "export"}
RUNTIME_WING = {"runtime", "jobs", "verify"}
# Beyond the floors: the wings know nothing of each other, and who runs an artifact needs no recipe.
FORBIDDEN = {
    **{room: RUNTIME_WING | {"__init__"} for room in COMPILE_WING},
    "runtime": COMPILE_WING | {"recipe"},
    "jobs": COMPILE_WING | {"recipe", "__init__"},
    "verify": COMPILE_WING | {"__init__"},
}
# Other people's modelling and quantization code has no place where vlmc's own does the work.
NO_FRAMEWORKS = set(FLOOR) - COMPILE_WING - {"cli"}
FRAMEWORKS = {"transformers", "compressed_tensors", "llmcompressor", "timm", "vllm", "lmdeploy"}
RUNS_CODE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
# What the command line may import of vlmc before a verb runs.
LIGHT = {"vlmc.cli", "vlmc.errors", "vlmc.version"}
# What the command line may not import before a verb runs.
HEAVY = {"torch", "onnx", "onnxscript", "onnxruntime", "pydantic", "yaml", "cv2", "PIL", "rich"}
START = [PACKAGE / name for name in ("__init__.py", "__main__.py", "errors.py", "version.py")]
START += sorted((PACKAGE / "cli").glob("*.py"))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def room_of(path: Path) -> str:
    """The room of vlmc that a module belongs to: its folder, or its own name at the top."""
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


def own_module(name: str) -> Path | None:
    """The file of vlmc that a dotted name leads to; a name that is no file's, to what holds it."""
    parts = name.split(".")
    if parts[0] != "vlmc":
        return None
    while parts:
        stem = ROOT.joinpath(*parts)
        for path in (stem.with_suffix(".py"), stem / "__init__.py"):
            if path.is_file():
                return path
        parts.pop()
    return None


@cache
def arrows() -> dict[Path, set[Path]]:
    """File → files of vlmc that it imports."""
    found: dict[Path, set[Path]] = {path: set() for path in MODULES}
    for path in MODULES:
        for _, name in imported(path):
            target = own_module(name)
            if target is not None and target != path:
                found[path].add(target)
    return found


def circles(graph: Mapping[Path, Iterable[Path]]) -> list[list[Path]]:
    """Each path that leads back to itself, once for the node where it was found."""
    done: set[Path] = set()
    found = []

    def follow(node: Path, above: list[Path]) -> None:
        if node in above:
            found.append(above[above.index(node) :])
        elif node not in done:
            for below in graph.get(node, ()):
                follow(below, [*above, node])
            done.add(node)

    for node in graph:
        follow(node, [])
    return found


def at(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def test_imports_run_down() -> None:
    offenders = []
    for path in MODULES:
        room = room_of(path)
        assert room in FLOOR, f"{room} is new: say above on which floor it is"
        for line, name in imported(path):
            target = own_module(name)
            if target is None or room_of(target) == room:
                continue
            below = room_of(target)
            if FLOOR[below] >= FLOOR[room] or below in FORBIDDEN.get(room, ()):
                offenders.append(f"{at(path, line)} imports {name}")
    assert offenders == []


def test_no_file_imports_itself_by_way_of_others() -> None:
    assert circles(arrows()) == []


def test_no_folder_imports_itself_by_way_of_others() -> None:
    folders: dict[Path, set[Path]] = {}
    for path, targets in arrows().items():
        # At the top a file is a room of its own.
        here = path if path.parent == PACKAGE else path.parent
        for target in targets:
            there = target if target.parent == PACKAGE else target.parent
            if there != here:
                folders.setdefault(here, set()).add(there)
    assert circles(folders) == []


def test_the_walk_sees_imports() -> None:
    """Of a kind each, so that an empty walk cannot pass for a clean one."""
    run = {name for _, name in imported(PACKAGE / "cli" / "run_local.py")}
    assert {"sys", "pathlib.Path", "vlmc.errors.VlmcError", "vlmc.runtime.load.load"} <= run
    assert own_module("vlmc.runtime.load.load") == PACKAGE / "runtime" / "load.py"
    assert own_module("vlmc.load") == PACKAGE / "__init__.py"
    assert own_module("torch.nn") is None
    assert {room_of(path) for path in MODULES} == set(FLOOR)
    a, b, c = Path("a"), Path("b"), Path("c")
    assert circles({a: [b], b: [c], c: []}) == []
    assert circles({a: [b], b: [c], c: [b]}) == [[b, c]]


def test_frameworks_stay_out() -> None:
    offenders = [
        f"{at(path, line)} imports {name}"
        for path in MODULES
        if room_of(path) in NO_FRAMEWORKS
        for line, name in imported(path)
        if name.split(".")[0] in FRAMEWORKS
    ]
    assert offenders == []


@pytest.mark.parametrize("path", START, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_start_imports_nothing_heavy(path: Path) -> None:
    """At import; the bodies of the verbs import what they need."""
    for node in tree_of(path).body:
        modules = (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
        for module in modules:
            assert module.split(".")[0] not in HEAVY, module
            assert not module.startswith("vlmc") or ".".join(module.split(".")[:2]) in LIGHT
            assert not module.startswith("vlmc.cli.views"), module


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


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_modules_are_short_and_say_what_they_are() -> None:
    for path in [*MODULES, *BENCHMARKS]:
        assert lines_of(path) <= MAX_LINES, path
        if path.read_text(encoding="utf-8").strip():
            assert ast.get_docstring(tree_of(path)), f"{path}: a module begins with what it is"
    # Without the files that only make a folder a package.
    assert statistics.median(map(lines_of, _without_inits(MODULES))) <= MAX_MEDIAN_LINES


def _without_inits(paths: Iterable[Path]) -> Iterator[Path]:
    return (path for path in paths if path.name != "__init__.py")


def test_tests_import_no_tests() -> None:
    """What two of them share is in a module that holds no tests."""
    offenders = [
        f"{at(path, line)} imports {name}"
        for path in [*TESTS, *BENCHMARKS]
        for line, name in imported(path)
        if re.search(r"^tests\.(.*\.)?test_", name)
    ]
    assert offenders == []


def test_tests_are_where_the_tested_is() -> None:
    for path in TESTS:
        folder = path.parent.relative_to(ROOT / "tests")
        if not folder.parts or folder.parts[0] not in ACROSS:
            assert (PACKAGE / folder).is_dir(), f"{path}: vlmc/{folder} does not exist"


def test_scripts_in_tests_name_modules_that_exist() -> None:
    """Those that run in other processes are texts here, which nothing else reads."""
    named = re.compile(r"^\s*(?:from|import) ((?:tests|vlmc)\.[\w.]+)", re.MULTILINE)
    for path in TESTS:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for name in named.findall(node.value):
                    stem = ROOT.joinpath(*name.split("."))
                    assert stem.with_suffix(".py").exists() or stem.is_dir(), at(path, node.lineno)


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


def test_architecture_names_what_exists() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    files = set(re.findall(r"`([\w/]+\.py)`", text)) - {"tests/test_house.py"}
    assert [name for name in sorted(files) if not (PACKAGE / name).is_file()] == []
    rows = re.findall(r"^\| `([\w/]+)/` \|", text, re.MULTILINE)
    folders = {str(path.parent.relative_to(PACKAGE)) for path in MODULES} - {"."}
    assert sorted(rows) == sorted(folders), "one line a folder"
