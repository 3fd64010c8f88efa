"""Tensors of a checkpoint, memory-mapped: single or sharded safetensors, LoRA merged on reading."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from vlmc.checkpoint.lora import LoraPair, resolve
from vlmc.checkpoint.safetensors_file import open_safetensors
from vlmc.errors import CheckpointError
from vlmc.files.strict_json import read_json

if TYPE_CHECKING:
    from torch import Tensor

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
# What trainers leave beside the weights, pickled too.
_NO_WEIGHTS = ("training_args.bin", "optimizer.bin", "scheduler.bin")


class Weights:
    """Read-only view of a checkpoint's tensors by name.

    Opening reads headers only. A tensor is mapped from its file when it is asked for, and nothing
    is kept, so that a model is never held twice. Low-rank pairs (`lora_A`, `lora_B`) appear merged
    into their base tensor, under the base tensor's plain name.

    Raises:
        CheckpointError: a file is missing, truncated, pickled, or disagrees with the index.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = ExitStack()
        self._files: dict[str, Path] = {}
        self._handles: dict[Path, Any] = {}
        self._shapes, self._dtypes = self._read_headers(_shards(folder))
        self._sources = resolve(self._shapes, folder)

    def _read_headers(
        self, shards: dict[Path, set[str] | None]
    ) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
        shapes: dict[str, tuple[int, ...]] = {}
        dtypes: dict[str, str] = {}
        for path, expected in shards.items():
            with _open(path, "np") as header:
                found = set(header.keys())
                for name in sorted(found):  # else another order, and other shards, in every run
                    if name in self._files:
                        raise CheckpointError(
                            f"tensor {name} is in {self._files[name].name} and in {path.name} of "
                            f"{self.folder}. Remove the stale shard or download the model again."
                        )
                    view = header.get_slice(name)
                    shapes[name], dtypes[name] = tuple(view.get_shape()), view.get_dtype()
                    self._files[name] = path
            missing = sorted((expected or set()) - found)
            if missing:
                raise CheckpointError(
                    f"{path} lacks {len(missing)} tensors that {INDEX} places in it, first "
                    f"{missing[0]}. Download the shard again."
                )
        return shapes, dtypes

    def __enter__(self) -> Weights:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._handles.clear()
        self._stack.close()

    def __contains__(self, name: object) -> bool:
        return name in self._sources

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def file(self, name: str) -> Path:
        """The file that holds a tensor."""
        return self._files[self._base(name)]

    @property
    def files(self) -> list[Path]:
        """All weight files, sorted."""
        return sorted(set(self._files.values()))

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape from the header, without touching the data."""
        return self._shapes[self._base(name)]

    def dtypes(self, name: str) -> set[str]:
        """Dtypes of a tensor and of the low-rank pair merged into it, as safetensors names them."""
        source = self._sources[name]
        parts = (source,) if isinstance(source, str) else source.parts
        return {self._dtypes[part] for part in parts}

    def tensor(self, name: str) -> Tensor:
        """The tensor, mapped from its file; a merged one is a new fp32 tensor."""
        source = self._sources[name]
        if isinstance(source, str):
            return self._mapped(source)
        down, up = self._mapped(source.down).float(), self._mapped(source.up).float()
        return self._mapped(source.base).float() + source.scale * (up @ down)

    def lora_ranks(self, prefix: str) -> set[int]:
        """Ranks of the pairs merged under a prefix; empty without LoRA."""
        sources = self._sources.items()
        return {
            s.rank for name, s in sources if name.startswith(prefix) and isinstance(s, LoraPair)
        }

    def _base(self, name: str) -> str:
        source = self._sources[name]
        return source if isinstance(source, str) else source.base

    def _mapped(self, name: str) -> Tensor:
        path = self._files[name]
        if path not in self._handles:
            self._handles[path] = self._stack.enter_context(_open(path, "pt"))
        tensor: Tensor = self._handles[path].get_tensor(name)
        return tensor


def pickled_weights(folder: Path) -> list[Path]:
    """Pickled files that can hold weights, sorted; never opened here."""
    return sorted(path for path in folder.glob("*.bin") if path.name not in _NO_WEIGHTS)


def _open(path: Path, framework: str) -> Any:
    try:
        return open_safetensors(path, framework)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} is missing, though {INDEX} names it. Download the shard again."
        ) from None


def _shards(folder: Path) -> dict[Path, set[str] | None]:
    """Weight files, with the tensors that an index places in each."""
    index = folder / INDEX
    if index.exists():
        return _read_index(index)
    if (folder / SINGLE).exists():
        return {folder / SINGLE: None}
    pickled = pickled_weights(folder)
    if pickled:
        raise CheckpointError(
            f"{folder} holds pickled weights ({pickled[0].name}), which can run code when they "
            f"are loaded. Convert them once: python -m vlmc.checkpoint.convert {folder} OUT_FOLDER"
        )
    raise CheckpointError(
        f"{folder} holds neither {SINGLE} nor {INDEX}. Give the folder of a complete download."
    )


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
