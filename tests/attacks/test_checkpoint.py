"""Source checkpoints made to harm whoever plans or builds from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from tests.artifacts import write_recipe
from tests.attacks.attempt import attempt
from tests.attacks.conftest import Change, edit_json
from tests.checkpoint.edit import copy, load
from tests.miniature.quantized import LANGUAGE_FILE, write_quantized

WO = "language_model.model.layers.0.attention.wo"
SETTINGS, PIECES, TOKENS = "config.json", "tokenizer.model", "tokenizer_config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def setting(**values: Any) -> Change:
    """An attack that changes the configuration; `a__b` is `b` of the object `a`."""
    return lambda folder: edit_json(folder / SETTINGS, **values)


def file(name: str, data: bytes) -> Change:
    """An attack that writes a file anew."""
    return lambda folder: (folder / name).write_bytes(data)


def lead_out(folder: Path) -> None:
    """An index whose weights lie elsewhere."""
    (folder / WEIGHTS).rename(folder.parent / WEIGHTS)
    (folder / INDEX).write_text(f'{{"weight_map": {{"mlp1.0.bias": "../{WEIGHTS}"}}}}')


ATTACKS: list[tuple[str, Change, str]] = [
    ("hidden", setting(llm_config__hidden_size=1 << 40), "llm_config.hidden_size is 1099511627776"),
    ("layers", setting(llm_config__num_hidden_layers=10**9), "num_hidden_layers is 1000000000"),
    ("blocks", setting(vision_config__num_hidden_layers=10**9), "num_hidden_layers is 1000000000"),
    ("pixels", setting(vision_config__image_size=1 << 40), "vision_config.image_size is"),
    ("inner", setting(vision_config__intermediate_size=1 << 24), "expected [16777216, "),
    ("tiles", setting(max_dynamic_patch=10**9), "max_dynamic_patch is 1000000000"),
    ("rank", setting(use_llm_lora=10**30), "use_llm_lora is"),
    ("nested", file(SETTINGS, b"[" * 500_000), "nested too deeply"),
    ("large", file(SETTINGS, b" " * 5_000_000), "larger than"),
    ("header-length", file(WEIGHTS, b"\xff" * 7 + b"\x0f{}"), "its header would be"),
    ("pickle", file(WEIGHTS, b"\x80\x04cos\nsystem\n(S'touch owned'\ntR."), "safetensors"),
    ("index", file(INDEX, b'{"a":' * 500_000), "nested too deeply"),
    ("index-outside", lead_out, "outside its folder"),
    ("pieces", file(PIECES, b"\x0a" + b"\xff" * 8 + b"\x7fx"), PIECES),
    ("tokens", file(TOKENS, b'{"a":' * 500_000), "nested too deeply"),
]


@pytest.mark.parametrize(
    ("attack", "said"), [pytest.param(*rest, id=name) for name, *rest in ATTACKS]
)
def test_a_made_checkpoint(attack: Change, said: str, miniature: Path, tmp_path: Path) -> None:
    folder = copy(miniature, tmp_path / "checkpoint")
    attack(folder)
    recipe = write_recipe(tmp_path / "recipe.yaml", folder)
    attempt(tmp_path, "plan", recipe).refused(1, said)
    attempt(tmp_path, "build", recipe, "-o", "artifact").refused(1, said)
    assert not (tmp_path / "artifact").exists() and not (folder / "owned").exists()


def words(**changed: Any) -> Change:
    """An attack on the tensors of one quantized linear, by their last names."""

    def change(folder: Path) -> None:
        tensors = load(folder / LANGUAGE_FILE)
        for kind, make in changed.items():
            tensors[f"{WO}.{kind}"] = make(tensors[f"{WO}.{kind}"])
        save_file(tensors, folder / LANGUAGE_FILE)

    return change


def cut(folder: Path) -> None:
    """A file that ends within its words."""
    data = (folder / LANGUAGE_FILE).read_bytes()
    (folder / LANGUAGE_FILE).write_bytes(data[:-1000])


def group_size(value: Any) -> Change:
    return setting(llm_config__quantization_config__group_size=value)


QUANTIZED: list[tuple[str, Change, str]] = [
    ("cut", cut, "truncated or damaged"),
    ("empty", words(qweight=lambda t: t[:0].clone()), f"{WO}.qweight has shape [0, 8]"),
    ("flat", words(qweight=lambda t: t.flatten()), f"{WO}.qweight has shape [512]"),
    ("wide", words(scales=lambda t: t.repeat(1, 64)), f"{WO}.scales has shape [2, 4096]"),
    ("group-of-all", group_size(1 << 60), "which the groups of 1152921504606846976"),
    ("group-of-none", group_size(0), "group_size is 0"),
    ("group-of-text", group_size("128"), "group_size is '128'"),
    (
        "pattern",
        setting(llm_config__quantization_config__modules_to_not_convert=["re:((a+)+"]),
        "modules_to_not_convert is",
    ),
]


@pytest.mark.parametrize(
    ("attack", "said"), [pytest.param(*rest, id=name) for name, *rest in QUANTIZED]
)
def test_a_made_quantized_checkpoint(
    attack: Change, said: str, miniature: Path, tmp_path: Path
) -> None:
    folder = write_quantized(miniature, tmp_path / "checkpoint", "awq")
    attack(folder)
    recipe = write_recipe(tmp_path / "recipe.yaml", folder)
    attempt(tmp_path, "plan", recipe).refused(1, said)
    attempt(tmp_path, "build", recipe, "-o", "artifact").refused(1, said)
    assert not (tmp_path / "artifact").exists()
