"""Read, check and sample the calibration dataset. Does not import torch."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vlmc.errors import ImageError, RecipeError

Modality = Literal["image_text", "text"]

MAX_UNREADABLE_SHARE = 0.1
_KEYS = ("image", "prompt", "answer")


@dataclass(frozen=True, slots=True)
class Sample:
    """One example; `image` is None for text-only calibration."""

    image: Path | None
    prompt: str
    answer: str | None


@dataclass(frozen=True, slots=True)
class CalibrationSet:
    """Samples in the order drawn."""

    samples: tuple[Sample, ...]
    digest: str  # sha256 over prompts, answers and the images' bytes
    skipped: tuple[str, ...]  # an error message for each unreadable image

    @property
    def images(self) -> tuple[Path, ...]:
        """The samples' images without duplicates, in the order drawn."""
        return tuple(dict.fromkeys(s.image for s in self.samples if s.image is not None))


def read_calibration(
    dataset: Path,
    samples: int,
    seed: int,
    *,
    modality: Modality = "image_text",
    decode_images: bool = True,
) -> CalibrationSet:
    """Draw `samples` lines of a file of JSON lines {"image", "prompt", "answer" (optional)}.

    The order depends only on the number of lines and the seed. A line whose image cannot be read
    is replaced by the next one.

    Args:
        dataset: the JSON Lines file. Image paths are relative to it.
        samples: the number of lines to draw.
        seed: seed of the random order.
        modality: `text` ignores images.
        decode_images: whether to decode images, or only to read their headers, as a plan does.

    Raises:
        RecipeError: the file or a line is not valid, there are fewer lines than `samples`, or over
            10 % of the images drawn cannot be read.
    """
    lines = list(_lines(dataset, modality))
    if len(lines) < samples:
        raise RecipeError(
            f"{dataset} has {len(lines)} samples, but calibration.samples is {samples}. Add lines, "
            "or lower calibration.samples."
        )
    random.Random(seed).shuffle(lines)
    digests, skipped = _digests(lines[:samples], decode_images)
    tried = {sample.image for sample in lines[:samples]}
    drawn = [sample for sample in lines[:samples] if sample.image not in skipped]
    for sample in lines[samples:]:
        if len(drawn) == samples:
            break
        if sample.image not in tried:
            more, lost = _digests([sample], decode_images)
            digests, skipped = digests | more, skipped | lost
            tried.add(sample.image)
        if sample.image not in skipped:
            drawn.append(sample)
    reasons = tuple(skipped.values())
    if len(skipped) > MAX_UNREADABLE_SHARE * len(tried):
        raise RecipeError(
            f"{dataset}: {len(skipped)} of {len(tried)} images cannot be read, more than "
            f"{MAX_UNREADABLE_SHARE:.0%}. First error: {reasons[0]}"
        )
    if len(drawn) < samples:
        raise RecipeError(
            f"{dataset} has {len(drawn)} samples with a readable image, but calibration.samples is "
            f"{samples}. First error: {reasons[0]}"
        )
    return CalibrationSet(tuple(drawn), _digest(drawn, digests), reasons)


def _lines(dataset: Path, modality: Modality) -> Iterator[Sample]:
    try:
        text = dataset.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise RecipeError(
            f"calibration.dataset {dataset} cannot be read: {error}. Give a JSON Lines file with "
            '{"image": path, "prompt": text} on each line.'
        ) from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{dataset} is not UTF-8: {error}; save it as UTF-8") from error
    # Not splitlines, which also splits at separators that JSON strings may contain.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield _sample(line, f"{dataset}:{number}", dataset.parent, modality)


def _sample(line: str, place: str, folder: Path, modality: Modality) -> Sample:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{place}: not a line of JSON ({error})") from error
    if not isinstance(values, dict):
        raise RecipeError(f'{place}: not an object {{"image": path, "prompt": text}}')
    for key in _KEYS:
        required = key == "prompt" or (key == "image" and modality == "image_text")
        value = values.get(key)
        if value is None and not required:
            continue
        if not isinstance(value, str) or (required and not value.strip()):
            found = "missing" if value is None else f"{value!r}"
            raise RecipeError(f'{place}: "{key}" is {found}; it must be a text that is not empty')
    image = folder / values["image"] if modality == "image_text" else None
    return Sample(image, values["prompt"], values.get("answer"))


def _digests(
    samples: Iterable[Sample], decode_images: bool
) -> tuple[dict[Path | None, str], dict[Path | None, str]]:
    """SHA-256 of the readable images, and error messages of the others, by path."""
    paths = list(dict.fromkeys(sample.image for sample in samples if sample.image is not None))
    good: dict[Path | None, str] = {}
    bad: dict[Path | None, str] = {}
    with ThreadPoolExecutor() as pool:
        for path, (digest, reason) in zip(
            paths, pool.map(lambda path: _examine(path, decode_images), paths), strict=True
        ):
            if reason:
                bad[path] = reason
            else:
                good[path] = digest
    return good, bad


def _examine(path: Path, decode_whole: bool) -> tuple[str, str]:
    """Digest of an image file, and the error message if it cannot be read."""
    # Imported on use, because `vlmc plan` imports this module without reading images.
    from vlmc.image.decode import decode, image_size
    from vlmc.image.source import read_image_file

    try:
        content = read_image_file(path)
        if decode_whole:
            decode(content, name=str(path))
        else:
            image_size(path)
    except ImageError as error:
        return "", str(error)
    return hashlib.sha256(content).hexdigest(), ""


def _digest(samples: Iterable[Sample], images: dict[Path | None, str]) -> str:
    digest = hashlib.sha256()
    for sample in samples:
        values = [images.get(sample.image), sample.prompt, sample.answer]
        digest.update(json.dumps(values).encode("ascii") + b"\n")
    return digest.hexdigest()
