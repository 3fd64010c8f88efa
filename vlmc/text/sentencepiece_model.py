"""SentencePiece vocabularies: InternLM2 (2B, 8B, 26B) and Llama (4B, 40B)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sentencepiece import SentencePieceProcessor, set_min_log_level

from vlmc.errors import TokenizerError
from vlmc.files.bounded_read import read_bytes
from vlmc.text.fast_file import SPACE
from vlmc.text.json_file import MAX_BYTES
from vlmc.text.sentencepiece_proto import UNUSED_PIECE

# `normalizer_spec { add_dummy_prefix: false }` as a serialized ModelProto: appended to a model,
# protobuf merges it into the model's own normalizer_spec.
_NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"
# In this order, what `clean_up_tokenization` replaces.
TIDIED = {
    **{spaced: spaced[1:] for spaced in (" .", " ?", " !", " ,")},
    " ' ": "'",
    **{spaced: spaced[1:] for spaced in (" n't", " 'm", " 's", " 've", " 're")},
}
# InternLM2's vocabulary has a NUL piece, which sentencepiece 0.2.3 would warn of at every load.
_ERRORS_ONLY = 2


def read_model(path: Path) -> bytes:
    """A tokenizer.model, which is a serialized SentencePiece model.

    Raises:
        TokenizerError: it cannot be read.
    """
    try:
        return read_bytes(path, MAX_BYTES)
    except (OSError, ValueError) as error:
        raise TokenizerError(
            f"{path}: cannot be read ({error}). Copy it from the checkpoint again"
        ) from error


def _load_processor(path: Path, serialized: bytes) -> SentencePieceProcessor:
    try:
        set_min_log_level(_ERRORS_ONLY)
        processor = SentencePieceProcessor()
        processor.LoadFromSerializedProto(serialized)
        pieces = processor.get_piece_size()
    except (RuntimeError, ValueError, TypeError) as error:
        raise TokenizerError(
            f"{path}: cannot be loaded as a SentencePiece model ({error}); the file is cut "
            "off or damaged. Copy it from the checkpoint again"
        ) from error
    if pieces == 0:
        raise TokenizerError(f"{path}: the SentencePiece model has no pieces; copy the file again")
    return processor


class SentencePieceVocabulary:
    """What both kinds share: pieces by id, ids by name, decoding by the library.

    `model` is serialized; `path` is the file that it comes from, for errors.
    """

    def __init__(self, path: Path, model: bytes) -> None:
        self.path = path
        self.processor = _load_processor(path, model)
        self.size: int = self.processor.get_piece_size()

    def find(self, piece: str) -> int | None:
        """The id of a piece by its exact name."""
        number: int = self.processor.piece_to_id(piece)
        return number if self.processor.id_to_piece(number) == piece else None

    def piece(self, number: int) -> str:
        """The name of piece `number` < `size`."""
        name: str = self.processor.id_to_piece(number)
        return name

    def is_free(self, number: int) -> bool:
        """Whether an added token may rename the piece, because text never becomes it."""
        return (
            self.processor.is_control(number)
            or self.processor.is_unused(number)
            or self.piece(number).startswith(UNUSED_PIECE)
        )

    def prepare(self, text: str) -> str:
        """The whole text, before it is split on added tokens."""
        return text

    def encode(self, segment: str) -> list[int]:
        """Ids of a text between added tokens."""
        ids: list[int] = self.processor.encode(segment, out_type=int)
        return ids

    def _decode(self, pieces: Sequence[str]) -> str:
        # By name and not by id: Llama decodes a first piece without its space, which may be none.
        return str(self.processor.decode(list(pieces))) if pieces else ""


class InternLM2Vocabulary(SentencePieceVocabulary):
    """Encodes without a dummy prefix; decoding always tidies the spaces before punctuation."""

    joiner = " "
    drops_lone_space = False

    def __init__(self, path: Path, model: bytes, *, bos: str | None, eos: str | None) -> None:
        super().__init__(path, model)
        # The original takes these ids from the model and their names from the configuration.
        for role, name, number in (
            ("bos_token", bos, self.processor.bos_id()),
            ("eos_token", eos, self.processor.eos_id()),
        ):
            if number < 0 or self.piece(number) != name:
                raise TokenizerError(
                    f"{path}: the model's {role} is not the {name!r} of tokenizer_config.json; "
                    "the files belong to different tokenizers. Copy both from one checkpoint"
                )
        if self.processor.normalize("a").startswith(SPACE):
            raise TokenizerError(
                f"{path}: the model sets add_dummy_prefix, InternLM2's does not; the file belongs "
                "to another tokenizer. Copy it from the checkpoint again"
            )

    def text(self, tokens: Sequence[str], special: frozenset[str]) -> str:
        """Text of names of pieces and special tokens; a space goes before a run of specials."""
        decoded, previous_special = "", False
        pending: list[str] = []
        for token in tokens:
            if token in special:
                decoded += ("" if previous_special else " ") + self._decode(pending) + token
                pending = []
            else:
                pending.append(token)
            previous_special = token in special
        return tidy_spaces(decoded + self._decode(pending))


class LlamaVocabulary(SentencePieceVocabulary):
    """Llama's slow tokenizer. `legacy` adds a dummy prefix to each text between added tokens
    (if the model says so); without it the whole input gets one in front and no other text does.
    """

    joiner = " "

    def __init__(self, path: Path, model: bytes, *, legacy: bool, unknown_token: str) -> None:
        super().__init__(path, model if legacy else model + _NO_DUMMY_PREFIX)
        self.legacy = legacy
        self.drops_lone_space = not legacy
        self._unknown_token = unknown_token
        self._unknown_pieces = len(super().encode(unknown_token))

    def prepare(self, text: str) -> str:
        """Without `legacy`, the one space in front of the whole input."""
        return text if self.legacy or not text else SPACE + text.replace(SPACE, " ")

    def encode(self, segment: str) -> list[int]:
        """Ids of a text between added tokens."""
        if self.legacy or not segment.startswith((SPACE, " ")):
            return super().encode(segment)
        # Without a dummy prefix the library drops a leading space unless something precedes it.
        ids = super().encode(self._unknown_token + segment)
        return ids[self._unknown_pieces :]

    def text(self, tokens: Sequence[str], special: frozenset[str]) -> str:
        """Text of names of pieces and special tokens, without the first piece's space."""
        tokens = [tokens[0].removeprefix(SPACE), *tokens[1:]]
        decoded, previous_special = "", False
        pending: list[str] = []
        for place, token in enumerate(tokens):
            if token in special:
                spaced = self.legacy and place > 0 and not previous_special
                decoded += (" " if spaced else "") + self._decode(pending) + token
                pending = []
            else:
                pending.append(token)
            previous_special = token in special
        return decoded + self._decode(pending)


def tidy_spaces(text: str) -> str:
    """`clean_up_tokenization`: takes the space before punctuation and English contractions."""
    for spaced, tidied in TIDIED.items():
        text = text.replace(spaced, tidied)
    return text
