"""Building the prompt of a request and reading its answer, as the original `chat()` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlmc.errors import PromptError, TokenizerError
from vlmc.text.template import Template
from vlmc.text.tokenizer import Tokenizer
from vlmc.text.vocabulary_checks import is_single

IMAGE_PLACEHOLDER = "<image>"
IMAGE_START, IMAGE_END = "<img>", "</img>"
IMAGE_TOKEN = "<IMG_CONTEXT>"


@dataclass(frozen=True, slots=True)
class Prompt:
    """`ids` are those of `text`; each tile's features replace a run of `image_token_id`."""

    text: str
    ids: tuple[int, ...]
    image_token_id: int


class PromptBuilder:
    """Builds prompts for one tokenizer, template and system message."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: Template,
        system_message: str | None = None,
        tokens_per_tile: int = 256,
    ) -> None:
        """`system_message` None is the template's. Raises TokenizerError if the template does
        not fit the tokenizer.
        """
        self._tokenizer = tokenizer
        self._template = template
        self._system_message = template.system_message if system_message is None else system_message
        self._tokens_per_tile = tokens_per_tile
        self._stop = template.separator.strip()
        self.stop_id: int = tokenizer.token_id(self._stop)
        self._image_token_id = tokenizer.token_id(IMAGE_TOKEN)
        for token in (self._stop, IMAGE_TOKEN):
            # Runs of image tokens are spliced into the ids: right only for single tokens.
            if not is_single(tokenizer, token):
                raise TokenizerError(
                    f"the template {template.name} needs {token!r} as a single token, this "
                    "tokenizer splits it; choose the template that fits the model"
                )

    def build(
        self,
        question: str,
        tile_counts: Sequence[int],
        history: Sequence[tuple[str, str]] = (),
    ) -> Prompt:
        """The prompt of `question` with one image for each entry of `tile_counts`.

        Images fill the `<image>` placeholders of the whole string in order, those of `history`
        (pairs of question and answer) included. A first question without one gets `<image>` and
        a line end in front, which takes the tiles of all its images.
        Raises PromptError if placeholders and images differ in number.
        """
        if any(count < 1 for count in tile_counts):
            raise PromptError(
                f"an image has {min(tile_counts)} tiles; every image needs at least one"
            )
        if not history and tile_counts and IMAGE_PLACEHOLDER not in question:
            question = f"{IMAGE_PLACEHOLDER}\n{question}"
            tile_counts = [sum(tile_counts)]
        rendered = self._template.render(self._system_message, history, question)
        self._check(rendered, len(tile_counts))

        runs = [count * self._tokens_per_tile for count in tile_counts]
        image = f"{IMAGE_START}{IMAGE_TOKEN}{IMAGE_END}"
        ids = self._tokenizer.encode(rendered.replace(IMAGE_PLACEHOLDER, image))
        return Prompt(
            text=_fill_placeholders(rendered, runs),
            ids=self._expand(ids, runs),
            image_token_id=self._image_token_id,
        )

    def answer_text(self, ids: Sequence[int]) -> str:
        """The answer in generated `ids`: up to the separator, without whitespace around it."""
        text = self._tokenizer.decode(ids, skip_special_tokens=True)
        return text.split(self._stop)[0].strip()

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        """The text of each of `ids` by itself, special tokens included."""
        return [self._tokenizer.decode([token], skip_special_tokens=False) for token in ids]

    def choice_ids(self, choice: str) -> tuple[int, ...]:
        """Ids of `choice` as the model would have to generate it at the start of its answer.

        Raises PromptError if it is empty, or its text fuses with the role in front of it.
        """
        role = self._tokenizer.encode(self._template.assistant)
        whole = self._tokenizer.encode(self._template.assistant + choice)
        if whole[: len(role)] != role or len(whole) == len(role):
            raise PromptError(
                f"the choice {choice!r} makes no tokens of its own after the prompt; give a choice "
                "that begins with a letter or digit"
            )
        return tuple(whole[len(role) :])

    def _check(self, rendered: str, images: int) -> None:
        if IMAGE_TOKEN in rendered:
            raise PromptError(
                f"the text holds {IMAGE_TOKEN}, which marks image features; write "
                f"{IMAGE_PLACEHOLDER} where an image belongs"
            )
        placeholders = rendered.count(IMAGE_PLACEHOLDER)
        if placeholders != images:
            raise PromptError(
                f"the prompt has {placeholders} {IMAGE_PLACEHOLDER} placeholder(s) but {images} "
                f"image(s) were given; write {IMAGE_PLACEHOLDER} once for each image, counting "
                "those of earlier turns, or leave it out of a first question altogether"
            )
        try:
            rendered.encode("utf-8")
        except UnicodeEncodeError as error:
            raise PromptError(
                f"the text holds half of a surrogate pair ({rendered[error.start]!r}) and is not "
                "valid Unicode; decode its source with the right encoding"
            ) from error

    def _expand(self, ids: Sequence[int], runs: Sequence[int]) -> tuple[int, ...]:
        """`ids` with the single image token of each image repeated as often as `runs` says."""
        if ids.count(self._image_token_id) != len(runs):
            raise PromptError(
                f"the prompt's text makes {ids.count(self._image_token_id)} image token(s) for "
                f"{len(runs)} image(s); take text that resembles {IMAGE_TOKEN} out of it"
            )
        expanded: list[int] = []
        start = 0
        for run in runs:
            place = ids.index(self._image_token_id, start)
            expanded.extend(ids[start:place])
            expanded.extend([self._image_token_id] * run)
            start = place + 1
        expanded.extend(ids[start:])
        return tuple(expanded)


def _fill_placeholders(rendered: str, runs: Sequence[int]) -> str:
    first, *others = rendered.split(IMAGE_PLACEHOLDER)
    pieces = [first]
    for run, other in zip(runs, others, strict=True):
        pieces += [IMAGE_START, IMAGE_TOKEN * run, IMAGE_END, other]
    return "".join(pieces)
