"""OpenAI batch files: JSON lines of requests to /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vlmc.errors import UsageError
from vlmc.files.units import shorten
from vlmc.jobs.input.formats import JsonLines
from vlmc.jobs.input.local_file import LocalFile
from vlmc.jobs.input.prompts import parse_object
from vlmc.jobs.input.rows import BatchRequest, ImageInput, InputRow, image_at, images_in
from vlmc.jobs.input.table_errors import TableErrors
from vlmc.runtime.sampling_options import make_sampling
from vlmc.text.prompt import IMAGE_PLACEHOLDER

ENDPOINT = "/v1/chat/completions"
MAX_TOP_LOGPROBS = 20
_LINE_KEYS = {"custom_id", "method", "url", "body"}
_HONOURED = {
    "model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed",
    "logprobs", "top_logprobs",
}  # fmt: skip
# Labels, which change nothing about an answer.
_LABELS = {"user", "metadata", "safety_identifier", "store", "service_tier"}
# Options that vlmc has no other value of.
_ONLY: dict[str, tuple[Any, ...]] = {
    "n": (1,), "stream": (False,), "presence_penalty": (0,),
    "frequency_penalty": (0,), "stop": ([],), "logit_bias": ({},), "tools": ([],),
    "response_format": ({"type": "text"},),
}  # fmt: skip


def is_batch(path: Path) -> bool:
    """Whether the first line of a file of JSON lines is a batch's request."""
    try:
        with path.open("rb") as file:
            _, first = next(JsonLines().records(file, str(path)), (0, b""))
            return {"custom_id", "body"} <= set(parse_object(first, str(path)))
    except (OSError, UsageError):
        return False


class BatchRows:
    """The requests of a batch, every line of which is checked when it is opened.

    Raises:
        UsageError: names the lines that are wrong, and the options that cannot be honoured.
    """

    left_out: Mapping[str, int] = {}
    columns: tuple[str, ...] = ()
    prompted = True
    text_only = False

    def __init__(self, file: LocalFile) -> None:
        self.source, self._file = file.source, file
        digest = file.digest
        errors = TableErrors(self.source)
        seen: set[int] = set()
        counts: set[int] = set()
        self._count = 0
        for row in self._rows(errors):
            counts.add(images_in(row))
            if row.batch is not None:
                with errors.collecting():
                    key = hash(row.batch.custom_id)
                    if key in seen:
                        raise UsageError(
                            f"{self.source}: the custom_id {shorten(repr(row.question))} is given "
                            "twice; give each request its own"
                        )
                    seen.add(key)
            self._count += 1
        errors.raise_if_any()
        self.identity = f"{digest}, {self._count} requests"
        self._image_counts = frozenset(counts - {0} or {0})

    def __len__(self) -> int:
        return self._count

    def image_counts(self) -> frozenset[int]:
        return self._image_counts

    def read(self, start: int = 0) -> Iterator[InputRow]:
        errors = TableErrors(self.source)
        for row in self._rows(errors):
            if row.number >= start:
                yield row
        errors.raise_if_any()

    def _rows(self, errors: TableErrors) -> Iterator[InputRow]:
        with self._file.path.open("rb") as file:
            lines = JsonLines().records(file, self.source)
            for number, (line_number, record) in enumerate(lines):
                with errors.collecting():
                    where = f"{self.source}:{line_number}"
                    yield self._row(number, where, parse_object(record, where))

    def _row(self, number: int, where: str, values: dict[str, Any]) -> InputRow:
        custom_id, body = values.get("custom_id"), values.get("body")
        unknown = sorted(set(values) - _LINE_KEYS)
        if unknown:
            raise UsageError(f"{where}: unknown key {unknown[0]!r}; use {', '.join(_LINE_KEYS)}")
        if not isinstance(custom_id, str) or not custom_id:
            raise UsageError(f"{where}: custom_id is {custom_id!r:.100}; it must be a text")
        if values.get("method", "POST") != "POST" or values.get("url", ENDPOINT) != ENDPOINT:
            raise UsageError(
                f"{where}: is {values.get('method')!r:.20} {values.get('url')!r:.100}; vlmc "
                f"answers POST {ENDPOINT}"
            )
        if not isinstance(body, dict):
            raise UsageError(f"{where}: body is {type(body).__name__}; it must be an object")
        _refuse_options(body, where)
        text, urls = _message(body.get("messages"), where)
        pairs = [image_at(self._file.folder, url) for url in urls]
        images = [image for image, _ in pairs]
        image: ImageInput | None = None
        if images:
            image = images[0] if len(images) == 1 else [*images]
        name = [name for _, name in pairs]
        return InputRow(
            number,
            image,
            name[0] if len(name) == 1 else name or None,
            text,
            custom_id,
            batch=_request(custom_id, body, where),
        )


def _request(custom_id: str, body: Mapping[str, Any], where: str) -> BatchRequest:
    model, logprobs = body.get("model", ""), body.get("logprobs")
    if not isinstance(model, str):
        raise UsageError(f"{where}: model is {model!r:.100}; it must be a text")
    if logprobs is not None and not isinstance(logprobs, bool):
        raise UsageError(f"{where}: logprobs is {logprobs!r:.100}; it must be true or false")
    top = body.get("top_logprobs") or 0
    if not isinstance(top, int) or isinstance(top, bool) or not 0 <= top <= MAX_TOP_LOGPROBS:
        raise UsageError(
            f"{where}: top_logprobs is {top!r:.100}; it must be a whole number from 0 to "
            f"{MAX_TOP_LOGPROBS}"
        )
    if top and not logprobs:
        raise UsageError(f"{where}: top_logprobs needs logprobs to be true")
    limits = {body.get("max_tokens"), body.get("max_completion_tokens")} - {None}
    if len(limits) > 1:
        raise UsageError(f"{where}: max_tokens and max_completion_tokens differ; give one")
    limit = limits.pop() if limits else None
    options = {
        name: body[name] for name in ("temperature", "top_p", "seed") if body.get(name) is not None
    }
    try:
        sampling = make_sampling(1 if limit is None else limit, **options)
    except UsageError as error:
        raise UsageError(
            f"{where}: {str(error).replace('max_new_tokens', 'max_tokens')}"
        ) from error
    sampling = replace(sampling, top_logprobs=top)
    return BatchRequest(custom_id, model, sampling, limit is not None, bool(logprobs))


def _refuse_options(body: Mapping[str, Any], where: str) -> None:
    """`UsageError` names an option that would be ignored."""
    for name, value in body.items():
        if name in _HONOURED or name in _LABELS or value is None:
            continue
        if name not in _ONLY:
            raise UsageError(
                f"{where}: vlmc cannot honour {shorten(repr(name))}; leave it out. It honours "
                f"{', '.join(sorted(_HONOURED))}"
            )
        if value not in _ONLY[name]:
            raise UsageError(
                f"{where}: {name} is {shorten(repr(value), 100)}, and vlmc has only "
                f"{_ONLY[name][0]!r}; leave it out"
            )


def _message(messages: object, where: str) -> tuple[str, list[str]]:
    """The prompt and the images of the only message: `<image>` stands where an image is.

    Text and images become a line each, in their order. Where the text has `<image>` itself, that
    says where the images belong.
    """
    if not isinstance(messages, list) or not messages:
        raise UsageError(f"{where}: messages must be a list of one user message")
    roles = [message.get("role") if isinstance(message, dict) else None for message in messages]
    if {"system", "developer"} & set(roles):
        raise UsageError(
            f"{where}: has a system message, but the system message is part of the artifact and "
            "of its verification; remove it, or build with --set model.system_message=TEXT"
        )
    if roles != ["user"]:
        raise UsageError(
            f"{where}: has messages of the roles {shorten(', '.join(map(repr, roles)))}; vlmc "
            "answers one user message"
        )
    texts: list[str] = []
    urls: list[str] = []
    lines: list[str] = []
    for part in _parts(messages[0].get("content"), where):
        if part.get("type") == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
            lines.append(part["text"])
        elif part.get("type") == "image_url":
            urls.append(_url(part.get("image_url"), where))
            lines.append(IMAGE_PLACEHOLDER)
        else:
            raise UsageError(
                f"{where}: a part of the content is {shorten(repr(part), 100)}; vlmc takes parts "
                "of type text and image_url"
            )
    if not any(text.strip() for text in texts):
        raise UsageError(f"{where}: the message has no text; ask a question")
    placed = any(IMAGE_PLACEHOLDER in text for text in texts)
    return "\n".join(texts if placed else lines), urls


def _parts(content: object, where: str) -> Sequence[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        return content
    raise UsageError(f"{where}: the message's content must be a text or a list of parts")


def _url(image: object, where: str) -> str:
    url = image.get("url") if isinstance(image, dict) else image
    if not isinstance(url, str) or not url:
        raise UsageError(f'{where}: image_url must be {{"url": a data: URL or the path of a file}}')
    detail = image.get("detail") if isinstance(image, dict) else None
    if detail not in (None, "auto"):
        raise UsageError(
            f"{where}: detail is {shorten(repr(detail), 100)}, but the tile rule of the job "
            "decides about that; leave it out, and see --tiles"
        )
    return url
