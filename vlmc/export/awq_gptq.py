"""An artifact's 4-bit language model in the layouts of AWQ and GPTQ, for other engines."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from safetensors import safe_open
from torch import Tensor

from vlmc.artifact.integrity import Artifact
from vlmc.checkpoint.huggingface import HEAD
from vlmc.checkpoint.packed import compressed_to_awq, compressed_to_gptq
from vlmc.compile.language.weights import write_shards
from vlmc.errors import UsageError
from vlmc.files.atomic import move_into_place
from vlmc.files.staging import staging_folder
from vlmc.files.strict_json import write_json

Format = Literal["awq", "gptq"]

_CONFIG = "config.json"
_PACKED = "weight_packed"


def export(artifact: Artifact, layout: Format, output: Path) -> None:
    """Write the language model into the new folder `output` with the same integers laid out as
    AWQ (GEMM) or GPTQ (version 1, without act-order); scales become fp16.

    Raises:
        UsageError: the artifact has no 4-bit weights, or `output` exists.
        CheckpointError: a scale does not fit fp16.
    """
    scheme = artifact.manifest.language_scheme
    if scheme != "w4a16":
        raise UsageError(
            f"{artifact.folder} was built with language.scheme {scheme}; awq and gptq are layouts "
            "of 4-bit weights. Build it with language.scheme w4a16, or from a checkpoint in 4 bits."
        )
    if output.exists():
        raise UsageError(f"{output} exists; name a new folder with -o")
    language = artifact.folder / "language"
    config = json.loads((language / _CONFIG).read_bytes())
    output.parent.mkdir(parents=True, exist_ok=True)
    with staging_folder(output.parent, output.name) as partial:
        for path in sorted(language.iterdir()):
            if path.suffix != ".safetensors" and not path.name.endswith(".index.json"):
                shutil.copyfile(path, partial / path.name)
        write_shards(partial, _laid_out(language, layout))
        config["quantization_config"] = _settings(config["quantization_config"], layout)
        write_json(partial / _CONFIG, config)
        move_into_place(partial, output)


def _laid_out(language: Path, layout: Format) -> Iterator[tuple[str, Tensor]]:
    """Every tensor, those of a packed linear together, wherever shards put them."""
    files = {name: path for path in sorted(language.glob("*.safetensors")) for name in _names(path)}
    for name in files:
        linear, _, kind = name.rpartition(".")
        if kind == _PACKED:
            parts = {
                other.rpartition(".")[2]: _tensor(path, other)
                for other, path in files.items()
                if other.rpartition(".")[0] == linear
            }
            made = (
                compressed_to_awq(parts, name=linear)
                if layout == "awq"
                else compressed_to_gptq(parts, name=linear)
            )
            yield from ((f"{linear}.{part}", tensor) for part, tensor in made.items())
        elif f"{linear}.{_PACKED}" not in files:
            yield name, _tensor(files[name], name)


def _names(path: Path) -> list[str]:
    with safe_open(path, framework="np") as file:
        return list(file.keys())


def _tensor(path: Path, name: str) -> Tensor:
    with safe_open(path, framework="pt") as file:
        tensor: Tensor = file.get_tensor(name)
        return tensor


def _settings(compressed: Mapping[str, Any], layout: Format) -> dict[str, Any]:
    """`quantization_config` as AutoAWQ's or GPTQ's readers look for it."""
    weights = compressed["config_groups"]["group_0"]["weights"]
    kept = [name for name in compressed["ignore"] if name != HEAD]
    size = -1 if weights["group_size"] is None else weights["group_size"]
    common = {"bits": 4, "group_size": size, "quant_method": layout}
    if layout == "awq":
        named = {"modules_to_not_convert": [HEAD, *kept]} if kept else {}
        return common | {"version": "gemm", "zero_point": True} | named
    return common | {
        "checkpoint_format": "gptq",
        "desc_act": False,
        "static_groups": False,
        "sym": weights["symmetric"],
        # GPTQ's readers find the layers left out here.
        **({"dynamic": {f"-:^{name}$".replace(".", r"\."): {} for name in kept}} if kept else {}),
    }
