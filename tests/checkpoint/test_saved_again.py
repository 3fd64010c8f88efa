"""Configurations that transformers 5 saved again describe the model that they were saved from."""

from __future__ import annotations

import filecmp
from dataclasses import replace
from pathlib import Path

import pytest

from tests.miniature.configuration import LANGUAGE, Tokenizer, Tower, configuration
from tests.saved_again import RECORDED, recorded_config
from vlmc.checkpoint.config import parse_config, parse_language_config
from vlmc.checkpoint.rope_config import RopeScaling

PATH = Path("some") / "config.json"
SHORT = (1.0, 1.0, 1.05, 1.1, 1.25, 1.4, 1.6, 1.9)
LONG = (1.02, 1.05, 1.3, 2.1, 4.7, 9.5, 17.25, 24.5)
PHI3 = RopeScaling("longrope", 1.0, SHORT, LONG, 512)
# What the original files say of rotary positions: base, window, scaling.
ROPES: dict[Tokenizer, tuple[Tower, float, int, RopeScaling]] = {
    "internlm2": ("300m", 1_000_000, 32768, RopeScaling("dynamic", 2.0)),
    "qwen2": ("300m", 1_000_000, 32768, RopeScaling()),
    "phi3": ("300m", 10_000, 16384, PHI3),
    "yi": ("6b", 5_000_000, 4096, RopeScaling()),
    "llama3": ("6b", 500_000, 8192, RopeScaling()),
}


@pytest.mark.parametrize("kind", ROPES)
def test_the_whole_configuration_is_the_originals(kind: Tokenizer) -> None:
    values = recorded_config(kind)
    assert "rope_parameters" in values["llm_config"], "else this shows nothing"
    assert "torch_dtype" not in values and values["dtype"] == "bfloat16"
    tower, theta, positions, scaling = ROPES[kind]
    found = parse_config(values, PATH)
    language = found.language
    assert (language.rope_theta, language.max_positions) == (theta, positions)
    assert language.rope_scaling == scaling
    assert found.dtype == "bfloat16"
    assert found == parse_config(configuration(kind, tower), PATH)


@pytest.mark.parametrize(
    ("name", "kind", "scaling"),
    [
        ("phi3 by transformers", "phi3", PHI3),
        ("qwen2 dynamic", "qwen2", RopeScaling("dynamic", 3.0)),
        ("yi dynamic", "yi", RopeScaling("dynamic", 3.0)),
    ],
)
def test_a_language_model_alone_with_scaled_rope(
    name: str, kind: Tokenizer, scaling: RopeScaling
) -> None:
    original = parse_language_config(LANGUAGE[kind], PATH)
    found = parse_language_config(recorded_config(name), PATH)
    assert found == replace(original, rope_scaling=scaling)
    assert found.rope_theta == ROPES[kind][1]


@pytest.mark.slow
def test_the_installed_transformers_still_writes_what_was_recorded(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    if transformers.__version__ != "5.17.0":
        pytest.skip(f"recorded with transformers 5.17.0, installed is {transformers.__version__}")
    from tests.data.saved_again.make_saved_again import main

    main(tmp_path)
    written = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*.json"))
    assert written == sorted(p.relative_to(RECORDED) for p in RECORDED.rglob("*.json"))
    for name in written:
        assert filecmp.cmp(tmp_path / name, RECORDED / name, shallow=False), name
