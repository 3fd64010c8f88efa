"""An artifact's 4-bit language model in the layouts of AWQ and GPTQ, for other engines."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from vlmc.artifact.integrity import Artifact
from vlmc.artifact.language_files import FOLDER
from vlmc.checkpoint.huggingface import HEAD
from vlmc.checkpoint.packed import compressed_to_awq, compressed_to_gptq
from vlmc.compile.language.weights import write_shards
from vlmc.errors import UsageError
from vlmc.export.config import has_dynamic_rope, kept_linears, text_config
from vlmc.export.limits import rope_note, split_groups
from vlmc.export.new_folder import new_folder
from vlmc.export.weights import language_files, read_tensor
from vlmc.files.strict_json import read_json, write_json
from vlmc.text.tokenizer import TOKENIZER_FILES

Format = Literal["awq", "gptq"]

_CONFIG = "config.json"
_PACKED = "weight_packed"


def export(artifact: Artifact, layout: Format, output: Path) -> list[str]:
    """Write the language model into the new folder `output` with the same integers laid out as
    AWQ (GEMM) or GPTQ (version 1, without act-order); scales become fp16.

    Returns:
        What these layouts do not hold of the artifact.

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
    language = artifact.folder / FOLDER
    config = read_json(language / _CONFIG)
    with new_folder(output) as partial:
        for name in (*TOKENIZER_FILES, "generation_config.json"):
            if (language / name).is_file():
                shutil.copyfile(language / name, partial / name)
        write_shards(partial, _laid_out(language, layout))
        values = text_config(config, dynamic_rope=False)
        write_json(partial / _CONFIG, values | {"quantization_config": _settings(config, layout)})
    return list(_notes(config))


def _notes(config: Mapping[str, Any]) -> Iterator[str]:
    yield "vision: this layout is of language models; the tower and projector are not in it."
    if has_dynamic_rope(config):
        yield rope_note(config)
    for reason in split_groups(config):
        yield (
            f"weights: vLLM and SGLang do not load this, because they join {reason}. For them name "
            "all of these in language.keep."
        )


def _laid_out(language: Path, layout: Format) -> Iterator[tuple[str, Tensor]]:
    """Every tensor, those of a packed linear together, wherever shards put them."""
    files = language_files(language)
    for name in files:
        linear, _, kind = name.rpartition(".")
        if kind == _PACKED:
            parts = {
                other.rpartition(".")[2]: read_tensor(path, other)
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
            yield name, read_tensor(files[name], name)


def _settings(config: Mapping[str, Any], layout: Format) -> dict[str, Any]:
    """`quantization_config` as AutoAWQ's or GPTQ's readers look for it."""
    weights = config["quantization_config"]["config_groups"]["group_0"]["weights"]
    kept = kept_linears(config)
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
