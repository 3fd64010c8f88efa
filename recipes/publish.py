"""Write what is made from vlmc's own tables: `python -m recipes.publish`.

`recipes/schema.json` is for editors, `docs/engines.md` for readers. Tests say when either is stale.
"""

from __future__ import annotations

import json
from pathlib import Path

from vlmc.machine.support import (
    CARDS,
    ENGINES,
    PRECISIONS,
    RUNS_ON,
    TARGETS,
    EngineName,
    Precision,
    Target,
    refusal,
)
from vlmc.recipe.schema import Recipe

ROOT = Path(__file__).parent.parent


def schema_json() -> str:
    """The JSON schema of a recipe."""
    schema = Recipe.model_json_schema()
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def engines_markdown() -> str:
    """The table of engine, precision and target, with the reasons below it."""
    reasons: list[str] = []
    rows = [["engine", "on", *PRECISIONS], ["---"] * (2 + len(PRECISIONS))]
    for engine in ENGINES:
        for target in (None,) if engine == "onnxruntime" else TARGETS:
            on = "CPU" if target is None else f"{target} ({CARDS[target]})"
            rows.append([engine, on, *(_cell(engine, p, target, reasons) for p in PRECISIONS)])
    return "\n".join(
        [
            "# Engines, precisions and cards",
            "",
            "Written by `python -m recipes.publish` from `vlmc/machine/support.py`. Recipes are",
            "checked against the same table. ● means that the engine supports the precision on",
            "the card, by NVIDIA's support matrices and the engine's own limits. It does not mean",
            "that it was measured there. A number refers to the reason below the table.",
            "",
            *(f"| {' | '.join(row)} |" for row in rows),
            "",
            *(f"{number}. {reason}." for number, reason in enumerate(reasons, 1)),
            "",
            "| engine | runs on |",
            "| --- | --- |",
            *(f"| {engine} | {where} |" for engine, where in RUNS_ON.items()),
            "",
            "`vision.precision` is the vision tower's. int8 and fp8 need a calibration dataset",
            "with images. The language model's `scheme: fp8` needs the same cards as fp8 here,",
            "and `model.dtype: bf16` the same as bf16.",
            "",
        ]
    )


def _cell(
    engine: EngineName, precision: Precision, target: Target | None, reasons: list[str]
) -> str:
    reason = refusal(engine, precision, target)
    if reason is None:
        return "●"
    if reason not in reasons:
        reasons.append(reason)
    return str(reasons.index(reason) + 1)


PUBLISHED = {"recipes/schema.json": schema_json, "docs/engines.md": engines_markdown}
"""File, relative to the repository → what makes its text."""


if __name__ == "__main__":
    for name, text in PUBLISHED.items():
        (ROOT / name).parent.mkdir(exist_ok=True)
        (ROOT / name).write_text(text(), encoding="utf-8")
