"""What an artifact holds, without reading more than its manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmc.artifact.accuracy_status import Accuracy, read_accuracy
from vlmc.artifact.bundled_graph import bundled_graph
from vlmc.artifact.engine_summary import engine_json, engine_rows
from vlmc.artifact.identity import NOT_RECORDED, is_recorded
from vlmc.artifact.integrity import check_files, resolve_folder
from vlmc.artifact.manifest import ImageRules, Manifest, RuntimeRules, read_manifest
from vlmc.artifact.signature import is_signed


@dataclass(frozen=True, slots=True)
class Summary:
    """An artifact's manifest and sizes, whose files are all there; their hashes are not checked."""

    folder: Path
    manifest: Manifest
    signed: bool
    accuracy: Accuracy

    @property
    def payload_bytes(self) -> int:
        """All files together."""
        return sum(entry.size for entry in self.manifest.payload.values())

    def sizes(self) -> dict[str, int]:
        """Bytes of each folder of the payload, and of each file beside them."""
        sizes: Counter[str] = Counter()
        for name, entry in self.manifest.payload.items():
            sizes[name.split("/")[0]] += entry.size
        return dict(sorted(sizes.items()))

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        engines = [
            engine_json(self.folder, self.manifest, engine)
            | {"accuracy": self.accuracy.status(engine)}
            for engine in self.manifest.engines
        ]
        graph = bundled_graph(self.manifest)
        return {
            "artifact": str(self.folder),
            "identity": self.manifest.identity,
            "identity_recorded": is_recorded(self.folder),
            "name": self.manifest.name,
            "accuracy": self.accuracy.overall(self.manifest),
            "accuracy_reports_ignored": list(self.accuracy.ignored),
            "engines": engines,
            "bundled_graph": None if graph is None else graph.file,
            "payload_bytes": self.payload_bytes,
            "sizes": self.sizes(),
            "signed": self.signed,
            "manifest": self.manifest.to_json(),
        }

    def lines(self) -> list[str]:
        """For people."""
        manifest = self.manifest
        rows = [
            ("artifact", str(self.folder)),
            ("name", manifest.name),
            ("identity", manifest.identity),
            *((("  check", NOT_RECORDED),) if not is_recorded(self.folder) else ()),
            ("made by", f"vlmc {manifest.vlmc}, {_versions(manifest.tools)}"),
            ("source", f"{len(manifest.source)} files"),
            ("language", f"{manifest.language_dtype}, scheme {manifest.language_scheme}"),
            ("template", manifest.prompt.template),
            ("tiles", _tiles(manifest.image)),
            ("runtime", _serving(manifest.runtime)),
            *self._engine_rows(),
            *(("report", said) for said in self.accuracy.ignored),
            ("size", f"{len(manifest.payload)} files, {self.payload_bytes:,} bytes"),
            *((f"  {name}", f"{size:,} bytes") for name, size in self.sizes().items()),
            ("signature", "there, not checked" if self.signed else "none"),
            ("hashes", f"not checked; vlmc verify integrity {self.folder}"),
        ]
        return [f"{key:<16}{value}" for key, value in rows]

    def _engine_rows(self) -> Iterator[tuple[str, str]]:
        for engine in self.manifest.engines:
            what = f"{engine.engine} for {engine.target}, {engine.precision}, {engine.file}"
            yield "engine", f"{what}; accuracy {self.accuracy.status(engine)}"
            for key, value in engine_rows(self.folder, self.manifest, engine):
                yield f"  {key}", value
        graph = bundled_graph(self.manifest)
        if graph is not None:
            what = f"{graph.engine} for {graph.target}, {graph.precision}, {graph.file}"
            yield "graph", f"{what}; taken on a CPU"


def summarize(folder: Path) -> Summary:
    """Read the manifest, and compare names and sizes of the files with it.

    Raises:
        IntegrityError: there is no readable manifest, or the files are not those it lists.
    """
    folder = resolve_folder(folder)
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    accuracy = read_accuracy(folder, manifest.identity)
    return Summary(folder, manifest, is_signed(folder), accuracy)


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _tiles(rules: ImageRules) -> str:
    kept = "" if rules.keep == 1 else f", {rules.tokens_per_tile} tokens of each kept"
    return f"{rules.tiles}{kept}, resampler {rules.resampler}"


def _serving(rules: RuntimeRules) -> str:
    graphs = "CUDA graphs" if rules.cuda_graphs else "no CUDA graphs"
    return f"{graphs}, prefix cache {rules.prefix_cache}, {rules.max_batch_tokens:,} tokens a step"
