"""What the source model makes of a dataset, portable between machines, known by content."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import save_file

from vlmc.checkpoint.safetensors_file import open_safetensors
from vlmc.errors import CheckpointError, UsageError
from vlmc.files.atomic import atomic_path
from vlmc.files.strict_json import parse_json
from vlmc.image.decode import ExifMode, decode
from vlmc.image.high_bit_depth import HighBitDepth
from vlmc.image.preprocess import read_tiles
from vlmc.image.resize import Resampler
from vlmc.image.tiles import TileRule
from vlmc.progress.channel import report
from vlmc.progress.events import Progress
from vlmc.verify.answer_tokens import read_tokens, token_arrays
from vlmc.verify.dataset import Dataset, Key
from vlmc.verify.features import check_finite
from vlmc.verify.pixels import ImageGrid, SampleTile, grid_of, sample_indices, sampled
from vlmc.verify.source import MAX_NEW_TOKENS, Source, SourceAnswer

# Format 1 lacks the answers' tokens.
_FORMATS = (1, 2)
_RECORD = "record"


@dataclass(frozen=True, slots=True)
class Reference:
    """Grids, answers, and features of sample tiles, of one source model on one dataset.

    `source` has the SHA-256 of the checkpoint's files by name; `tiles` is uint8
    (N, 448, 448, 3), `features` fp32 (N, 256, hidden); `from_file` says that another run, perhaps
    on another machine, made it.
    """

    source: Mapping[str, str]
    dtype: str
    device: str
    template: str
    system_message: str
    dataset: str
    dataset_path: str
    grids: Mapping[str, ImageGrid]
    answers: Mapping[Key, SourceAnswer]
    places: tuple[SampleTile, ...]
    tiles: npt.NDArray[np.uint8]
    features: npt.NDArray[np.float32]
    from_file: bool = False


@dataclass(frozen=True, slots=True)
class ImageMaking:
    """How the artifact makes tiles; its features are compared on such."""

    rule: TileRule
    resampler: Resampler
    exif: ExifMode
    high_bit_depth: HighBitDepth


def make_reference(
    source: Source,
    digests: Mapping[str, str],
    dataset: Dataset,
    making: ImageMaking,
) -> Reference:
    """Ask the source model every question of the dataset.

    Raises:
        AccuracyError: its features or logits are NaN or infinite, or it was misread.
        VlmcError: an image or a prompt is not usable.
    """
    source.check_prompts(dataset.questions)
    images = dataset.images
    shares = dict(sampled(list(images)))
    grids: dict[str, ImageGrid] = {}
    places: list[SampleTile] = []
    tiles, features = [], []
    for done, (digest, path) in enumerate(images.items(), 1):
        grids[digest] = grid_of(decode(path), source.rule)
        if digest in shares:
            made = read_tiles(
                path,
                making.rule,
                making.resampler,
                exif=making.exif,
                high_bit_depth=making.high_bit_depth,
            ).tiles
            for index in sample_indices(len(made), shares[digest]):
                places.append(SampleTile(digest, index))
                tiles.append(made[index])
                features.append(source.tower.features(made[index][None]).cpu().numpy())
                check_finite(features[-1], str(path))
        report(Progress("images of the reference", done, len(images)))
    answers: dict[Key, SourceAnswer] = {}
    given = source.answers(dataset.questions)
    for done, (question, answer) in enumerate(zip(dataset.questions, given, strict=True), 1):
        answers[question.key] = answer
        report(Progress("answers of the reference", done, len(dataset.questions)))
    return Reference(
        source=digests,
        dtype=source.dtype,
        device=str(source.tower.device),
        template=source.prompt.template,
        system_message=source.prompt.system_message,
        dataset=dataset.digest,
        dataset_path=str(dataset.path.absolute()),
        grids=grids,
        answers=answers,
        places=tuple(places),
        tiles=np.stack(tiles),
        features=np.concatenate(features),
    )


def write_reference(reference: Reference, path: Path) -> None:
    """Write it as one safetensors file, whole or not at all.

    Raises:
        UsageError: the place cannot be written to.
    """
    record = {
        "format": _FORMATS[-1],
        "source": dict(reference.source),
        "dtype": reference.dtype,
        "device": reference.device,
        "template": reference.template,
        "system_message": reference.system_message,
        "max_new_tokens": MAX_NEW_TOKENS,
        "dataset": reference.dataset,
        "dataset_path": reference.dataset_path,
        "grids": {digest: asdict(grid) for digest, grid in reference.grids.items()},
        "answers": [
            [*key, answer.text, answer.first_logprob, len(answer.token_ids)]
            for key, answer in reference.answers.items()
        ],
        "places": [[place.image, place.index] for place in reference.places],
    }
    text = json.dumps(record, ensure_ascii=True).encode("ascii")
    tensors: dict[str, npt.NDArray[Any]] = {
        # Not the header, which safetensors limits to 100 MB.
        _RECORD: np.frombuffer(text, np.uint8),
        "tiles": reference.tiles,
        "features": reference.features,
        **token_arrays([*reference.answers.values()]),
    }
    try:
        with atomic_path(path) as temporary:
            save_file(tensors, temporary)
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{path} cannot be written: {error}") from error


def read_reference(path: Path) -> Reference:
    """Read what `write_reference` wrote; the file may come from elsewhere.

    Raises:
        UsageError: it cannot be read, or is none.
    """
    try:
        with open_safetensors(path, "np") as file:
            record = parse_json(file.get_tensor(_RECORD).tobytes())
            tensors = {name: file.get_tensor(name) for name in file.keys() if name != _RECORD}  # noqa: SIM118
            return _parse(record, tensors)
    except (OSError, CheckpointError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path} is not a valid reference file ({error}). Make one with `vlmc verify "
            "reference RECIPE -o REF`."
        ) from error


def _parse(record: Any, tensors: Mapping[str, npt.NDArray[Any]]) -> Reference:
    if record["format"] not in _FORMATS or record["max_new_tokens"] != MAX_NEW_TOKENS:
        raise ValueError("another version of vlmc wrote it")
    tiles, features = tensors["tiles"], tensors["features"]
    places = tuple(SampleTile(str(image), int(index)) for image, index in record["places"])
    count, hidden = len(places), features.shape[-1]
    if (
        tiles.dtype != np.uint8
        or features.dtype != np.float32
        or tiles.shape != (count, 448, 448, 3)
        or features.shape != (count, 256, hidden)
    ):
        raise ValueError(f"its tiles are {tiles.shape}, its features {features.shape}")
    # Images, prompt, text, log-probability of the first token, and from format 2 the tokens.
    rows = [[*row, 0][:5] for row in record["answers"]]
    logprobs = [row[3] for row in rows]
    if not np.isfinite(features).all() or not all(map(math.isfinite, logprobs)):
        raise ValueError("its features or log-probabilities are NaN or infinite")
    return Reference(
        source=dict(record["source"]),
        dtype=str(record["dtype"]),
        device=str(record["device"]),
        template=str(record["template"]),
        system_message=str(record["system_message"]),
        dataset=str(record["dataset"]),
        dataset_path=str(record["dataset_path"]),
        grids={digest: ImageGrid(**grid) for digest, grid in record["grids"].items()},
        answers={
            (tuple(images), str(prompt)): SourceAnswer(str(text), float(logprob), tokens, top)
            for (images, prompt, text, logprob, _), (tokens, top) in zip(
                rows, read_tokens([int(row[4]) for row in rows], tensors), strict=True
            )
        },
        places=places,
        tiles=tiles,
        features=features,
        from_file=True,
    )
