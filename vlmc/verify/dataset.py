"""The questions that an artifact is verified with, known by the content of their images."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmc.errors import UsageError
from vlmc.files.hashing import files_sha256
from vlmc.files.strict_json import parse_json

Key = tuple[tuple[str, ...], str]
"""SHA-256 of the images' bytes, and the prompt: what an answer belongs to, on any machine."""
_KEYS = ("image", "prompt", "label", "question", "positive", "choices")


@dataclass(frozen=True, slots=True)
class Question:
    """One line of a dataset; without them `label` is None, `positive` and `choices` are empty."""

    line: int
    images: tuple[Path, ...]
    digests: tuple[str, ...]
    prompt: str
    label: str | None
    question: str
    positive: tuple[str, ...]
    choices: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        """What its answer is known by."""
        return self.digests, self.prompt

    @property
    def request(self) -> tuple[list[Path], str]:
        """What a model is asked."""
        return list(self.images), self.prompt


@dataclass(frozen=True, slots=True)
class Dataset:
    """Questions, those on the same images after each other, so that these are encoded once.

    `digest` is the SHA-256 of the questions and their images' content, whatever their paths;
    `limit` how many of the file's questions were taken, None for all.
    """

    path: Path
    questions: tuple[Question, ...]
    digest: str
    limit: int | None

    @property
    def images(self) -> dict[str, Path]:
        """A path of every distinct image, by the SHA-256 of its bytes."""
        pairs = (zip(item.digests, item.images, strict=True) for item in self.questions)
        return {digest: path for item in pairs for digest, path in item}

    def to_json(self) -> dict[str, Any]:
        """What a report says of it, as plain values."""
        return {
            "name": self.path.name,
            "digest": self.digest,
            "questions": len(self.questions),
            "images": len(self.images),
            "limit": self.limit,
        }


def read_dataset(path: Path, limit: int | None = None) -> Dataset:
    """Read JSON lines of image, prompt, label, question, positive, choices; hashes the images.

    `image` is a path relative to the file, or a list of them. `limit` takes the first so many.

    Raises:
        UsageError: a line cannot be read or an image is missing; names file and line.
    """
    lines = _read_lines(path)
    # One that leaves nothing out is none: the whole file is asked.
    limit = None if limit is None or limit >= len(lines) else limit
    lines = lines[:limit]
    if not lines:
        raise UsageError(f"{path} holds no question; write lines of image, prompt and label")
    asked = [(number, _parse(text, f"{path}:{number}", path.parent)) for number, text in lines]
    sizes: dict[Path, int] = {}
    for number, values in asked:
        for image in values["image"]:
            if image in sizes:
                continue
            try:
                sizes[image] = image.stat().st_size
            except OSError as error:
                raise UsageError(
                    f"{path}:{number}: the image {image} cannot be read ({error.strerror})"
                ) from error
    try:
        digests = files_sha256(sizes)
    except OSError as error:
        raise UsageError(
            f"{path} names an image that cannot be read: {error.filename} ({error.strerror})"
        ) from error
    questions = [
        Question(
            line=number,
            images=values["image"],
            digests=tuple(digests[image] for image in values["image"]),
            prompt=values["prompt"],
            label=values["label"],
            question=values["question"],
            positive=values["positive"],
            choices=values["choices"],
        )
        for number, values in asked
    ]
    first = {question.digests: place for place, question in reversed([*enumerate(questions)])}
    questions.sort(key=lambda question: first[question.digests])
    return Dataset(path, tuple(questions), _digest(questions), limit)


def _read_lines(path: Path) -> list[tuple[int, str]]:
    """(line number, text) of the lines that are not empty."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    return [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def _parse(text: str, where: str, folder: Path) -> dict[str, Any]:
    try:
        values = parse_json(text.encode())
    except ValueError as error:
        raise UsageError(f"{where}: is not a JSON object ({error}); correct the line") from error
    if not isinstance(values, dict):
        raise UsageError(f"{where}: is {type(values).__name__}, not an object; write {{…}}")
    unknown = sorted(values.keys() - set(_KEYS))
    if unknown:
        raise UsageError(f"{where}: unknown key {unknown[0]!r}; known: {', '.join(_KEYS)}")
    image, prompt, label = values.get("image"), values.get("prompt"), values.get("label")
    names = [image] if isinstance(image, str) else image
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise UsageError(f'{where}: "image" is {image!r}; it must be a path or a list of paths')
    if not isinstance(prompt, str) or not prompt.strip():
        raise UsageError(f'{where}: "prompt" is {prompt!r}; it must be text that is not empty')
    if label is not None and not isinstance(label, str):
        raise UsageError(f'{where}: "label" is {label!r}; it must be text, or left out')
    question, positive = values.get("question", ""), values.get("positive", [])
    if isinstance(question, bool) or not isinstance(question, str | int):
        raise UsageError(f'{where}: "question" is {question!r}; it must be text or a number')
    if not isinstance(positive, list) or not all(isinstance(word, str) for word in positive):
        raise UsageError(f'{where}: "positive" is {positive!r}; it must be a list of labels')
    if positive and label is None:
        raise UsageError(f'{where}: has "positive" but no "label", the true answer')
    choices = values.get("choices", [])
    texts = isinstance(choices, list) and all(isinstance(c, str) and c.strip() for c in choices)
    if not texts or len(choices) == 1 or len(set(choices)) < len(choices):
        raise UsageError(f'{where}: "choices" is {choices!r}; it must be at least two answers')
    return {
        "image": tuple(folder / name for name in names),
        "prompt": prompt,
        "label": label,
        "question": str(question),
        "positive": tuple(positive),
        "choices": tuple(choices),
    }


def _digest(questions: list[Question]) -> str:
    digest = hashlib.sha256()
    for item in questions:
        values: list[Any] = [item.digests, item.prompt, item.label, item.question, item.positive]
        if item.choices:  # without them the digest is that of earlier versions
            values.append(item.choices)
        digest.update(json.dumps(values, ensure_ascii=True).encode("ascii") + b"\n")
    return digest.hexdigest()
