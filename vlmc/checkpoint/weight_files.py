"""Which files of a checkpoint folder hold its weights."""

from __future__ import annotations

from pathlib import Path

from vlmc.errors import CheckpointError
from vlmc.files.strict_json import read_json

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
_ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
# What trainers leave beside the weights, pickled too.
_NO_WEIGHTS = ("training_args.bin", "optimizer.bin", "scheduler.bin", "adapter_model.bin")
_MERGE = (
    "Merge it with PEFT, model = PeftModel.from_pretrained(base, adapter).merge_and_unload(), save "
    "the result with model.save_pretrained(folder), and copy the base model's tokenizer files there"
)


def check_adapter(folder: Path) -> None:
    """Refuse a folder with a PEFT adapter that is not merged, or may not be.

    Raises:
        CheckpointError: says how to merge it.
    """
    found = [name for name in (ADAPTER_CONFIG, *_ADAPTERS) if (folder / name).exists()]
    if not found:
        return
    weights = [name for name in (INDEX, SINGLE) if (folder / name).exists()]
    if weights:
        raise CheckpointError(
            f"{folder} holds a model ({weights[0]}) and a PEFT adapter ({found[0]}). The model may "
            "be the adapter's base, or have the adapter merged in already; which one cannot be "
            f"known. If it is merged, move {' and '.join(found)} away. If not: {_MERGE}."
        )
    base = _base_model(folder / ADAPTER_CONFIG)
    raise CheckpointError(
        f"{folder} holds a PEFT adapter ({found[0]}) and not the model that it changes"
        f"{f', {base!r}' if base else ''}. {_MERGE}."
    )


def find_weight_files(folder: Path) -> dict[Path, set[str] | None]:
    """Weight files, with the tensors that an index places in each.

    Raises:
        CheckpointError: there are none, only pickled ones, or two sets of them.
    """
    index, single = folder / INDEX, folder / SINGLE
    if index.exists():
        placed = _read_index(index)
        if single.exists() and single not in placed:
            first = min(placed).name if placed else "no file"
            raise CheckpointError(
                f"{folder} holds {SINGLE} and {INDEX}, which names {len(placed)} other files, "
                f"first {first}. They are two sets of weights, and which one is meant cannot be "
                "known. Move one of the two away."
            )
        return placed
    if single.exists():
        return {single: None}
    pickled = pickled_weights(folder)
    if pickled:
        raise CheckpointError(
            f"{folder} holds pickled weights ({pickled[0].name}), which can run code when they "
            f"are loaded. Convert them once: python -m vlmc.checkpoint.convert {folder} OUT_FOLDER"
        )
    raise CheckpointError(
        f"{folder} holds neither {SINGLE} nor {INDEX}. Give the folder of a complete download."
    )


def pickled_weights(folder: Path) -> list[Path]:
    """Pickled files that can hold weights, sorted; never opened here."""
    return sorted(path for path in folder.glob("*.bin") if path.name not in _NO_WEIGHTS)


def _base_model(config: Path) -> str | None:
    """The name that an adapter gives its base model, if it can be read."""
    try:
        name = read_json(config)["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return name[:200] if isinstance(name, str) else None


def _read_index(index: Path) -> dict[Path, set[str] | None]:
    try:
        placed = read_json(index)["weight_map"]
        pairs = [(str(name), str(file)) for name, file in placed.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{index} is not a safetensors index with a weight_map: {error!r}. Download it again."
        ) from error
    shards: dict[Path, set[str] | None] = {}
    for name, file in pairs:
        if Path(file).name != file or file in ("", ".."):
            raise CheckpointError(f"{index} places {name} outside its folder, in {file!r}")
        names = shards.setdefault(index.parent / file, set())
        if names is not None:
            names.add(name)
    return shards
