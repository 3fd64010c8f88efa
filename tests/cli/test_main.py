"""The command line: what goes to stdout, what to stderr, and how it ends."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import vlmc
from tests.artifacts import write_recipe
from tests.command import call
from vlmc import load
from vlmc.artifact.manifest import read_manifest
from vlmc.distribution import install_command

COLUMNS = ["row", "image", "question", "prompt", "answer", "scores", "image_tokens", "error"]
QUESTIONS = ["What is this?", "Is it a room?"]


def prompts(*texts: str) -> list[str]:
    return [part for text in texts for part in ("--prompt", text)]


@pytest.fixture
def folder(images: Path, tmp_path: Path) -> Path:
    """Two pictures and one that is cut short, as a user would have them."""
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    shutil.copy(images / "480x320.jpg", folder / "a.jpg")
    shutil.copy(images / "320x480.jpg", folder / "below" / "b.jpg")
    (folder / "cut.jpg").write_bytes((images / "480x320.jpg").read_bytes()[:500])
    return folder


def lines_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_help_is_quick_since_nothing_heavy_is_imported() -> None:
    script = (
        "import sys\n"
        "from vlmc.cli.main import main\n"
        "for arguments in (['--help'], ['build', '--help'], ['run', '-h'], ['--version']):\n"
        "    try:\n"
        "        main(arguments)\n"
        "    except SystemExit as error:\n"
        "        assert not error.code, error.code\n"
        "print('modules:', *sorted(name.split('.')[0] for name in sys.modules))\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    text, _, modules = finished.stdout.partition("modules:")
    for part in ("build", "run", "--prompt", "--json", "--set", vlmc.__version__):
        assert part in text
    loaded = set(modules.split())
    assert "click" in loaded
    heavy = {"torch", "onnx", "onnxruntime", "onnxscript", "pydantic", "yaml", "numpy", "cv2"}
    assert loaded & (heavy | {"PIL", "tokenizers", "sentencepiece", "pyarrow", "rich"}) == set()


def test_build_then_run(
    miniature: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = write_recipe(tmp_path / "recipe.yaml", miniature)
    built = call("build", recipe, "--set", "image.tiles.rule=single", "--set", "name=shop")
    assert built.exit_code == 0
    path = Path(built.stdout.strip())
    assert built.stdout == f"artifacts/{path.name}\n"
    assert path.name == f"shop-{read_manifest(path).identity[:8]}"
    assert "built artifacts/shop-" in built.stderr

    out = tmp_path / "answers.jsonl"
    command = ["run", "artifacts/shop", folder, *prompts(*QUESTIONS), "-o", out, "--device", "cpu"]
    ran = call(*command)
    assert ran.exit_code == 0
    assert ran.stdout == f"{out}\n"
    assert "tiles single, accuracy not_run" in ran.stderr
    assert "4 answers, 2 errors for 3 rows in " in ran.stderr
    lines = lines_of(out)
    assert [list(line) for line in lines] == [COLUMNS] * 6
    places = [folder / "a.jpg", folder / "below" / "b.jpg", folder / "cut.jpg"]
    expected = [(place, question) for place in places for question in QUESTIONS]
    assert [(line["image"], line["prompt"]) for line in lines] == [
        (str(place), question) for place, question in expected
    ]
    assert [line["error"] is None for line in lines] == [True] * 4 + [False] * 2
    with load(path, device="cpu") as model:
        answers = model.generate(expected[:4])
    assert [line["answer"] for line in lines[:4]] == [answer.text for answer in answers]
    assert [line["image_tokens"] for line in lines[:4]] == [256] * 4

    whole = out.read_bytes()
    again = call(*command, "--json")
    assert json.loads(again.stdout)["resumed"] == 6
    assert out.read_bytes() == whole
    out.write_bytes(b"".join(whole.splitlines(keepends=True)[:3]) + b'{"row": 1, "ima')
    resumed = call(*command, "--json")
    assert json.loads(resumed.stdout)["resumed"] == 3
    assert out.read_bytes() == whole
    other = call(*command, "--max-new-tokens", 2)
    assert other.exit_code == 2, "an output of another job is not continued"
    assert out.read_bytes() == whole


def test_the_summary_counts_in_singular_and_plural(artifact: Path, folder: Path) -> None:
    out = folder.parent / "answers.jsonl"
    command = ["run", artifact, folder / "a.jpg", *prompts("A room?"), "-o", out]
    first = call(*command, "--tiles", "single")
    assert "1 answer, 0 errors for 1 row in " in first.stderr
    assert "earlier run" not in first.stderr
    again = call(*command, "--tiles", "single")
    assert again.stderr.endswith(" s, 1 of them from an earlier run\n")


def test_run_scores_choices(artifact: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    pattern = folder / "*.jpg"
    command = ["run", artifact, pattern, *prompts("A room?"), "-o", out, "--tiles", "single"]
    result = call(*command, "--choices", "yes, no")
    assert result.exit_code == 0
    first, cut = lines_of(out)
    with load(artifact, device="cpu", tiles="single") as model:
        (scores,) = model.score([(folder / "a.jpg", "A room?")], choices=["yes", "no"])
    assert first["scores"] == pytest.approx(scores, abs=1e-4)
    assert first["answer"] == max(scores, key=scores.__getitem__)
    assert cut["scores"] is None and cut["error"]
    command[command.index("-o") + 1] = tmp_path / "shares.jsonl"
    assert call(*command, "--choices", "yes, no", "--score", "probability").exit_code == 0
    shares = lines_of(tmp_path / "shares.jsonl")[0]["scores"]
    assert shares == pytest.approx(scores.probabilities, abs=1e-4)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_run_reads_and_writes_tables(
    suffix: str, artifact: Path, folder: Path, tmp_path: Path
) -> None:
    rows = [
        {"image": "a.jpg", "id": 7, "question": "kind", "prompt": "What is this?"},
        {"image": "below/b.jpg", "id": 8, "question": "room", "prompt": "Is it a room?"},
    ]
    table, out = folder / f"rows.{suffix}", tmp_path / f"answers.{suffix}"
    if suffix == "jsonl":
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), table)
    result = call("run", artifact, table, "-o", out, "--tiles", "single", "--json")
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert told.pop("seconds") > 0
    assert told == {
        "output": str(out),
        "rows": 2,
        "answers": 2,
        "errors": 0,
        "reasons": [],
        "resumed": 0,
        "remaining": 0,
        "stopped": None,
        "added": [],
        "removed": [],
        "changed": [],
        "left_out": {},
        "rotation_ignored": 0,
        "clipped_to_8_bits": 0,
    }
    lines = lines_of(out) if suffix == "jsonl" else pq.read_table(out).to_pylist()
    assert [(line["id"], line["question"], line["error"]) for line in lines] == [
        (7, "kind", None),
        (8, "room", None),
    ]
    with load(artifact, device="cpu", tiles="single") as model:
        answers = model.generate([(folder / row["image"], row["prompt"]) for row in rows])  # type: ignore[operator, misc]
    assert [line["answer"] for line in lines] == [answer.text for answer in answers]


def test_json_is_all_there_is_on_stdout(artifact: Path, folder: Path, tmp_path: Path) -> None:
    """Of the process as a whole, libraries in C++ included."""
    arguments = [artifact, folder, *prompts("x"), "-o", tmp_path / "out.jsonl", "--json"]
    finished = subprocess.run(
        [sys.executable, "-m", "vlmc", "run", *map(str, arguments), "--tiles", "single"],
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(finished.stdout)
    assert finished.stdout.count("\n") == 1
    assert (told["rows"], told["answers"], told["errors"]) == (3, 2, 1)
    assert "accuracy unverified, since the artifact's tile rule is original" in finished.stderr


def damaged(artifact: Path, tmp_path: Path) -> Path:
    folder = shutil.copytree(artifact, tmp_path / "damaged")
    (folder / "vision" / "golden.npz").write_bytes(b"")
    return folder


ENDINGS: dict[str, tuple[Callable[[Path, Path, Path], list[object]], int, str]] = {
    "no verb": (lambda artifact, folder, tmp: ["buld"], 2, "No such command"),
    "no output": (lambda artifact, folder, tmp: ["run", artifact, folder], 2, "--output"),
    "no recipe": (lambda artifact, folder, tmp: ["build", tmp / "no.yaml"], 2, "cannot be read"),
    "bad recipe": (
        lambda artifact, folder, tmp: [
            "build",
            write_recipe(tmp / "r.yaml", tmp),
            "--set",
            "nam=x",
        ],
        2,
        "did you mean name?",
    ),
    "no checkpoint": (
        lambda artifact, folder, tmp: ["build", write_recipe(tmp / "r.yaml", tmp / "none")],
        1,
        "is not a folder",
    ),
    "no prompt": (
        lambda artifact, folder, tmp: ["run", artifact, folder, "-o", tmp / "o.jsonl"],
        2,
        "give --prompt or --prompts",
    ),
    "both prompts": (
        lambda artifact, folder, tmp: [
            *("run", artifact, folder, "-o", tmp / "o.jsonl"),
            *("--prompt", "x", "--prompts", tmp / "p.txt"),
        ],
        2,
        "are both given",
    ),
    "one choice": (
        lambda artifact, folder, tmp: [
            *("run", artifact, folder, "-o", tmp / "o.jsonl"),
            *("--prompt", "x", "--choices", "yes"),
        ],
        2,
        "give at least two",
    ),
    "no input": (
        lambda artifact, folder, tmp: [
            *("run", artifact, tmp / "none", "-o", tmp / "o.jsonl", "--prompt", "x"),
        ],
        2,
        "no such file or folder",
    ),
    "bad tiles": (
        lambda artifact, folder, tmp: [
            *("run", artifact, folder, "-o", tmp / "o.jsonl", "--prompt", "x", "--tiles", "nativ"),
        ],
        2,
        "unknown tile rule",
    ),
    "no token": (
        lambda artifact, folder, tmp: [
            *("run", artifact, folder, "-o", tmp / "o.jsonl", "--prompt", "x"),
            *("--max-new-tokens", "0"),
        ],
        2,
        "--max-new-tokens",
    ),
    "no artifact": (
        lambda artifact, folder, tmp: ["run", tmp, folder, "-o", tmp / "o.jsonl", "--prompt", "x"],
        4,
        "is not an artifact",
    ),
    "damaged artifact": (
        lambda artifact, folder, tmp: [
            *("run", damaged(artifact, tmp), folder, "-o", tmp / "o.jsonl", "--prompt", "x"),
        ],
        4,
        "golden.npz is 0 bytes",
    ),
    "no GPU": (
        lambda artifact, folder, tmp: [
            *("run", artifact, folder, "-o", tmp / "o.jsonl", "--prompt", "x", "--device", "cuda"),
        ],
        5,
        "cuda was asked for",
    ),
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_exit_code_and_message(
    ending: str, as_json: bool, artifact: Path, folder: Path, tmp_path: Path
) -> None:
    arguments, code, said = ENDINGS[ending]
    command = arguments(artifact, folder, tmp_path)
    result = call(*command, *(["--json"] if as_json else []))
    assert result.exit_code == code, result.output
    assert said in result.stderr
    assert result.stdout == "", "the result is all that stands there"
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "o.jsonl").exists()


def test_build_without_its_packages_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("vlmc.recipe")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pydantic", None)
    result = call("build", write_recipe(tmp_path / "recipe.yaml", tmp_path))
    assert result.exit_code == 2
    assert "pydantic" in result.stderr and install_command("build") in result.stderr


def test_an_interrupted_build_says_how_to_go_on(
    miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vlmc.builder.build.open_checkpoint", interrupt)
    result = call("build", write_recipe(tmp_path / "recipe.yaml", miniature), "-o", tmp_path / "x")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.endswith("run the same command again to resume.\n")
