"""Tensors of a checkpoint, memory-mapped: single or sharded safetensors, LoRA merged on reading."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from vlmc.checkpoint.finite import is_finite
from vlmc.checkpoint.lora import LoraPair, resolve
from vlmc.checkpoint.safetensors_file import open_safetensors
from vlmc.checkpoint.weight_files import INDEX, find_weight_files
from vlmc.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor


class Weights:
    """Read-only view of a checkpoint's tensors by name.

    Opening reads headers only. A tensor is mapped from its file on demand, and nothing is kept, so
    that a model is never held twice. The first time that a tensor is read, its values are checked.
    Low-rank pairs (`lora_A`, `lora_B`) appear merged into their base tensor, under the base
    tensor's plain name.

    Raises:
        CheckpointError: a file is missing, truncated, pickled, or disagrees with the index.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = ExitStack()
        self._files: dict[str, Path] = {}
        self._handles: dict[Path, Any] = {}
        self._shapes, self._dtypes = self._read_headers(find_weight_files(folder))
        self._checked: set[str] = set()
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

    def dtype(self, name: str) -> str:
        """Dtype of a tensor, or of the base weight that a low-rank pair is merged into."""
        return self._dtypes[self._base(name)]

    def dtypes(self, name: str) -> set[str]:
        """Dtypes of a tensor and of the low-rank pair merged into it, as safetensors names them."""
        source = self._sources[name]
        parts = (source,) if isinstance(source, str) else source.parts
        return {self._dtypes[part] for part in parts}

    def tie(self, name: str, source: str) -> None:
        """Make `name` another name of the tensor `source`."""
        self._sources[name] = self._sources[source]

    def equal(self, name: str, other: str) -> bool:
        """Whether two tensors have the same values."""
        if self.shape(name) != self.shape(other):
            return False
        return bool((self.tensor(name) == self.tensor(other)).all())

    def tensor(self, name: str) -> Tensor:
        """The tensor, mapped from its file; a merged one is a new fp32 tensor.

        Raises:
            CheckpointError: a value is NaN or infinite; names tensor and file.
        """
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
        if name not in self._checked:
            if not is_finite(tensor):
                raise CheckpointError(
                    f"{path}: tensor {name} holds NaN or infinite values, from which no answer can "
                    "be computed. Training diverged, or the file is damaged: download it again, or "
                    "take an earlier checkpoint."
                )
            self._checked.add(name)
        return tensor


def _open(path: Path, framework: str) -> Any:
    try:
        return open_safetensors(path, framework)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} is missing, though {INDEX} names it. Download the shard again."
        ) from None
