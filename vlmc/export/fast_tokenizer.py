"""A checkpoint's tokenizer as a tokenizer.json that the `tokenizers` library runs.

Other engines load it without the checkpoint's own code, and get the ids that vlmc makes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tokenizers import AddedToken as FastToken
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from vlmc.errors import TokenizerError
from vlmc.text.byte_level import SPLIT_PATTERN, ByteLevelVocabulary
from vlmc.text.fast_file import SPACE
from vlmc.text.json_tokenizer import JsonTokenizer
from vlmc.text.piece_tokenizer import PieceTokenizer
from vlmc.text.sentencepiece_model import TIDIED, LlamaVocabulary, SentencePieceVocabulary
from vlmc.text.sentencepiece_proto import (
    NORMAL,
    USER_DEFINED,
    Piece,
    changes_text,
    read_pieces,
)
from vlmc.text.special_tokens import AddedToken
from vlmc.text.tokenizer import Tokenizer as OwnTokenizer
from vlmc.text.vocabulary_checks import IMAGE_TOKENS


def fast_tokenizer(tokenizer: OwnTokenizer, *, adds_bos: bool) -> Tokenizer:
    """The `tokenizers` object with the same ids for every text inside a prompt.

    Args:
        tokenizer: a loaded checkpoint's tokenizer.
        adds_bos: whether it puts BOS before a text, where `tokenizer` does. Engines that tokenize
            a rendered chat template, BOS included, need one that does not.

    Raises:
        TokenizerError: its rules have no form in a tokenizer.json.
    """
    if isinstance(tokenizer, JsonTokenizer):
        made = Tokenizer.from_str(tokenizer.to_json())
        if not adds_bos and tokenizer.bos_id in made.encode("").ids:
            made.post_processor = processors.Sequence([])
    elif isinstance(tokenizer, PieceTokenizer):
        made = _from_pieces(tokenizer, adds_bos=adds_bos)
    else:
        raise TypeError(f"{type(tokenizer).__name__} is not one of the two kinds of tokenizers")
    if " " not in tokenizer.decode(tokenizer.encode("a .")):
        # transformers 5 ignores clean_up_tokenization_spaces of such tokenizers.
        tidy = (decoders.Replace(spaced, tidied) for spaced, tidied in TIDIED.items())
        made.decoder = decoders.Sequence([made.decoder, decoders.Fuse(), *tidy])
    return made


def _from_pieces(tokenizer: PieceTokenizer, *, adds_bos: bool) -> Tokenizer:
    added = dict(tokenizer.added)
    if isinstance(tokenizer.vocabulary, ByteLevelVocabulary):
        made = _byte_level(tokenizer.vocabulary)
    elif isinstance(tokenizer.vocabulary, SentencePieceVocabulary):
        pieces = read_pieces(tokenizer.vocabulary.processor.serialized_model_proto())
        made = _sentencepiece(tokenizer.vocabulary, pieces, added)
        # The library looks these up in the text, before it joins any piece.
        literal = {n: p.text for n, p in enumerate(pieces) if p.kind == USER_DEFINED}
        added |= {n: AddedToken(t, special=False) for n, t in literal.items() if n not in added}
    else:
        raise TypeError(f"{type(tokenizer.vocabulary).__name__} is not a known vocabulary")
    _add(made, added)
    if adds_bos and tokenizer.adds_bos and tokenizer.bos_id is not None:
        bos = added[tokenizer.bos_id].content
        made.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A",
            pair=f"{bos} $A {bos} $B:1",
            special_tokens=[(bos, tokenizer.bos_id)],
        )
    return made


def check_ids(
    made: Tokenizer, tokenizer: OwnTokenizer, prompts: Mapping[str, Sequence[int]]
) -> None:
    """Compare `prompts` with their ids, and every piece of the vocabulary as inside a prompt.

    Raises:
        TokenizerError: a text has other ids in `made`.
    """
    bos = [tokenizer.bos_id]
    texts = list(_probes(made.get_vocab(with_added_tokens=False)))
    expected = [*prompts.values(), *(tokenizer.encode(text) for text in texts)]
    found = made.encode_batch([*prompts, *texts], add_special_tokens=False)
    for text, own, other in zip([*prompts, *texts], expected, found, strict=True):
        plain = list(own[1:] if list(own[:1]) == bos else own)
        given = other.ids[1:] if other.ids[:1] == bos else other.ids
        if given != plain:
            raise TokenizerError(
                f"the text {text!r:.200} has the ids {plain} in vlmc and {given} in a "
                "tokenizer.json, so other engines would read prompts differently. Serve the "
                "artifact with vlmc."
            )


def _probes(pieces: Mapping[str, int]) -> Iterator[str]:
    """Texts that begin with an added token, as texts inside prompts do."""
    begin, end, *_ = IMAGE_TOKENS
    for piece in pieces:
        text = piece.replace(SPACE, " ")
        # "<" may make an added token with what surrounds it; NUL is a piece or a byte, which
        # SentencePiece's version decides.
        if "<" not in text and "\0" not in text:
            yield f"{begin}{text}{end}"


def _byte_level(vocabulary: ByteLevelVocabulary) -> Tokenizer:
    made = Tokenizer(vocabulary.model)
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    return made


def _sentencepiece(
    vocabulary: SentencePieceVocabulary, pieces: list[Piece], added: Mapping[int, AddedToken]
) -> Tokenizer:
    if changes_text(vocabulary.processor.serialized_model_proto()):
        raise TokenizerError(
            f"{vocabulary.path}: the model replaces characters or drops spaces, which no released "
            "InternVL2 tokenizer does and the exported tokenizer.json does not express"
        )
    # An added token may rename a piece that no text makes.
    names = {n: added[n].content if n in added else p.text for n, p in enumerate(pieces)}
    made = Tokenizer(
        models.BPE(
            vocab={name: number for number, name in names.items()},
            merges=_merges(pieces),
            unk_token=names[vocabulary.processor.unk_id()],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    replace = normalizers.Replace(" ", SPACE)
    first = isinstance(vocabulary, LlamaVocabulary) and not vocabulary.legacy
    always = vocabulary.processor.normalize("a").startswith(SPACE)
    if first:
        made.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="first", split=False)
    else:
        prefix = [normalizers.Prepend(SPACE)] if always else []
        made.normalizer = normalizers.Sequence([*prefix, replace])
    drops_first = [decoders.Strip(" ", 1, 0)] if isinstance(vocabulary, LlamaVocabulary) else []
    made.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *drops_first]
    )
    return made


def _merges(pieces: list[Piece]) -> list[tuple[str, str]]:
    """Pairs of pieces that make a piece; SentencePiece first joins to the one of highest score."""
    ids = {piece.text: number for number, piece in enumerate(pieces) if piece.kind == NORMAL}
    merges = []
    for text in sorted(ids, key=lambda text: -pieces[ids[text]].score):
        halves = [(text[:place], text[place:]) for place in range(1, len(text))]
        fitting = [pair for pair in halves if pair[0] in ids and pair[1] in ids]
        merges += sorted(fitting, key=lambda pair: (ids[pair[0]], ids[pair[1]]))
    return merges


def _add(made: Tokenizer, added: Mapping[int, AddedToken]) -> None:
    """Add tokens in the order of their ids, which gives those beyond the pieces their own."""
    for _, token in sorted(added.items()):
        fast = FastToken(
            token.content,
            lstrip=token.lstrip,
            rstrip=token.rstrip,
            normalized=False,
            special=token.special,
        )
        if token.special:
            made.add_special_tokens([fast])
        else:
            made.add_tokens([fast])
