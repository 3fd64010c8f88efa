"""Token ids of a chat about one picture: what all questions share, and one question's branch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import sentencepiece

from recipes.quickstart.training.layout import CHECKPOINT
from recipes.quickstart.training.make_tokenizer import SYSTEM_MESSAGE
from vlmc.image.tiles import TOKENS_PER_TILE

IGNORED = -100
"""Target of a token that is given, not predicted."""


@dataclass(frozen=True, slots=True)
class Branch:
    """One question after the shared prefix; `targets[i]` is what token `i` has to predict."""

    ids: tuple[int, ...]
    targets: tuple[int, ...]


class Prompts:
    """The `internlm2-chat` template, token for token what the original `chat()` makes.

    `head + image tokens + tail + question + answer` are one sequence. SentencePiece sees each
    stretch between special tokens alone, so a question's ids do not depend on the image.
    """

    def __init__(self, folder: Path = CHECKPOINT) -> None:
        self.model = sentencepiece.SentencePieceProcessor(
            model_file=str(folder / "tokenizer.model")
        )
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        ids = {
            entry["content"]: int(number)
            for number, entry in settings["added_tokens_decoder"].items()
        }
        start, self.end = ids["<|im_start|>"], ids["<|im_end|>"]
        self.image = ids["<IMG_CONTEXT>"]
        system = self.model.encode("system\n" + SYSTEM_MESSAGE)
        self.head: list[int] = [ids["<s>"], start, *system, self.end, start]
        self.head += [*self.model.encode("user\n"), ids["<img>"]]
        self.tail: list[int] = [ids["</img>"]]
        self.ask: list[int] = [self.end, start, *self.model.encode("assistant\n")]

    def prefix(self, tiles: int) -> list[int]:
        """Ids up to `</img>`, which every question about an image of `tiles` tiles shares."""
        return [*self.head, *[self.image] * (TOKENS_PER_TILE * tiles), *self.tail]

    def question(self, text: str) -> list[int]:
        """Ids from after `</img>` to where the answer begins."""
        return [*self.model.encode("\n" + text), *self.ask]

    def branch(self, question: str, answer: str) -> Branch:
        """A question with its answer as targets, the last of them `<|im_end|>`."""
        given = self.question(question)
        wanted: list[int] = [*self.model.encode(answer), self.end]
        targets = [IGNORED] * (len(given) - 1) + wanted
        return Branch(tuple([*given, *wanted[:-1]]), tuple(targets))

    def text(self, ids: list[int]) -> str:
        """The answer that generated ids spell, up to `<|im_end|>`."""
        stop = ids.index(self.end) if self.end in ids else len(ids)
        pieces = [number for number in ids[:stop] if number < self.model.get_piece_size()]
        return str(self.model.decode(pieces)).strip()
