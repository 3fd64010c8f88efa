"""The quickstart: its recipe builds, and the artifact answers as a trained model does."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from recipes.quickstart.table import HERE, answer, questions
from vlmc.artifact.manifest import read_manifest
from vlmc.cli.main import main
from vlmc.verify.metrics import score, score_by_question

IMAGES = 10
SHIPPED_BYTES = 24_000_000
CHECKPOINT_BYTES = 8_000_000


def test_quickstart_builds_and_answers(tmp_path: Path) -> None:
    folder = tmp_path / "artifact"
    # The plan is built for real, and cannot be run where no such card is.
    engines = "vision.engines=[{engine: tensorrt-rtx, targets: [sm89]}, {engine: onnxruntime}]"
    command = ["build", str(HERE / "recipe.yaml"), "-o", str(folder), "--set", engines]
    built = CliRunner().invoke(main, command)
    assert built.exit_code == 0, built.output
    assert (folder / "vision" / "tensorrt-rtx-sm89.engine").stat().st_size > 3_000_000
    # CPUs without bf16 emulate it.
    assert read_manifest(folder).language_dtype == "float32"
    asked, _ = questions("eval", IMAGES)
    native = answer(folder, asked, "native")
    single = answer(folder, asked, "single")
    # The whole split gives 0.95 and 0.98; a broken tower, tokenizer or resize loses far more
    # than so few images can vary.
    assert score(native.judged).exact.value > 0.88
    presence = score_by_question(native.judged)["presence"]
    assert presence.recall.value > 0.88
    assert presence.precision.value > 0.88
    # Small letters are lost on a single tile: the split shows what a rule trades.
    assert score(native.judged).exact.hits > score(single.judged).exact.hits


def test_gate_lets_the_recipe_pass_and_not_a_single_tile(tmp_path: Path) -> None:
    # What passes needs all of them; what is far off shows it on fewer.
    for tiles, limit, code in (("{rule: native}", 30, 0), ("{rule: native, max: 1}", 15, 3)):
        folder = tmp_path / f"artifact-{code}"
        command = ["build", str(HERE / "recipe.yaml"), "--set", f"image.tiles={tiles}"]
        assert CliRunner().invoke(main, [*command, "-o", str(folder)]).exit_code == 0
        result = CliRunner().invoke(
            main, ["verify", "accuracy", str(folder), "--limit", str(limit)]
        )
        assert result.exit_code == code, result.output
        assert ("min_answer_agreement: 0." in result.stderr) == (code == 3)
        assert f"eval.jsonl, {limit} questions on " in result.stdout
        assert f"the first {limit} of the file" in result.stdout


def test_what_is_shipped_is_small() -> None:
    sizes = {path: path.stat().st_size for path in HERE.rglob("*") if path.is_file()}
    checkpoint = {path: size for path, size in sizes.items() if "checkpoint" in path.parts}
    assert sum(checkpoint.values()) < CHECKPOINT_BYTES
    data = [size for path, size in sizes.items() if path.suffix in (".jpg", ".jsonl")]
    assert sum(data) < SHIPPED_BYTES
