"""The pictures of builds and quantizations, in a real browser."""

from __future__ import annotations

from pathlib import Path

from tests.browser import check_readable
from vlmc.report import html
from vlmc.report.layer_bars import draw_layers
from vlmc.report.layer_lines import draw_lines

_KINDS = ("gate_up_proj", "down_proj", "q_proj", "k_proj", "v_proj", "o_proj", "self_attn.qkv_proj")


def test_pictures_of_layers_are_readable(tmp_path: Path) -> None:
    """As large as those of a tower with 24 layers, and of a language model with 48."""
    parts = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    names = [f"vision_model.encoder.layers.{n}.{part}" for n in range(24) for part in parts]
    layers = [
        {
            "name": name,
            "precision": ("int8", "fp8", "fp16", "fp32")[index % 4],
            "loss": 1e-9 * 3**index,
        }
        for index, name in enumerate(["mlp1.1", "mlp1.3", *names])
    ]
    lines = {
        kind: {layer: (layer + place) / 50 for layer in range(48)}
        for place, kind in enumerate(_KINDS)
    }
    pictures = {
        "layers": draw_layers("Vision tower in int8", layers),
        "lines": draw_lines(
            "relative error of outputs on held-out samples by decoder layer: gptq, group 128, "
            "asymmetric",
            lines,
            48,
        ),
    }
    check_readable(
        {name: html.page(name, [html.picture(picture)]) for name, picture in pictures.items()},
        tmp_path,
    )
