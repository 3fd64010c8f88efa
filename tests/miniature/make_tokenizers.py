"""Trains the miniature tokenizers into `tokenizers/`; run again only to change them.

    python -m tests.miniature.make_tokenizers

needs sentencepiece, protobuf and tokenizers. The results are committed, because what a trainer
makes may differ between its versions, and the oracle's values hold for these files alone.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from tests.miniature.corpus import CORPUS

FOLDER = Path(__file__).parent / "tokenizers"
NORMAL, USER_DEFINED = 1, 4
IMAGE_TOKENS = (
    "<img>",
    "</img>",
    "<IMG_CONTEXT>",
    "<quad>",
    "</quad>",
    "<ref>",
    "</ref>",
    "<box>",
    "</box>",
)
INTERNLM2_CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + "
    "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_SPLIT = QWEN2_SPLIT.replace(r"|\p{N}|", r"|\p{N}{1,3}|")


def token(content: str, *, special: bool = True, rstrip: bool = False) -> dict[str, Any]:
    """One entry of `added_tokens_decoder`."""
    return {
        "content": content,
        "lstrip": False,
        "normalized": False,
        "rstrip": rstrip,
        "single_word": False,
        "special": special,
    }


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def write_settings(
    folder: Path,
    added: dict[int, dict[str, Any]],
    base: int,
    names: dict[str, str | None],
    additional: list[str],
    **settings: Any,
) -> None:
    """Writes tokenizer_config.json, special_tokens_map.json and added_tokens.json.

    `added` maps ids to entries; added_tokens.json names those that the base vocabulary of `base`
    entries does not have under that name. `names` are the bos, eos, pad and unk tokens.
    """
    config: dict[str, Any] = {
        "added_tokens_decoder": {str(number): added[number] for number in sorted(added)},
        "additional_special_tokens": additional,
        **names,
        **settings,
    }
    write_json(folder / "tokenizer_config.json", dict(sorted(config.items())))
    roles = {name: value for name, value in names.items() if value is not None}
    write_json(
        folder / "special_tokens_map.json", {"additional_special_tokens": additional, **roles}
    )
    extra = {entry["content"]: number for number, entry in added.items() if number >= base}
    write_json(folder / "added_tokens.json", dict(sorted(extra.items())))


def train_sentencepiece(
    vocab_size: int,
    controls: tuple[str, ...],
    *,
    dummy_prefix: bool,
    bos: str,
    eos: str,
    newline_piece: bool = True,
) -> Any:
    """A BPE model with byte fallback as a ModelProto; ids 0, 1, 2 are unk, bos and eos."""
    corpus = CORPUS if newline_piece else [text.replace("\n", " ") for text in CORPUS]
    buffer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus),
        model_writer=buffer,
        model_type="bpe",
        vocab_size=vocab_size,
        byte_fallback=True,
        character_coverage=1.0,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        unk_piece="<unk>",
        bos_piece=bos,
        eos_piece=eos,
        control_symbols=list(controls),
        normalization_rule_name="identity",
        add_dummy_prefix=dummy_prefix,
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        split_digits=True,
        num_threads=1,
        minloglevel=2,
    )
    # protobuf makes the class when the module is loaded.
    proto: Any = vars(sentencepiece_model_pb2)["ModelProto"]()
    proto.ParseFromString(buffer.getvalue())
    return proto


def append_piece(proto: Any, piece: str, kind: int) -> int:
    """Adds a piece after the last and returns its id."""
    entry = proto.pieces.add()
    entry.piece = piece
    entry.score = -float(len(proto.pieces))
    entry.type = kind
    return len(proto.pieces) - 1


def make_internlm2() -> None:
    """2B, 8B, 26B: renamed [UNUSED_TOKEN_k] pieces at the end, then the image tokens."""
    folder = FOLDER / "internlm2"
    folder.mkdir(parents=True, exist_ok=True)
    proto = train_sentencepiece(600, (), dummy_prefix=False, bos="<s>", eos="</s>")
    # The original holds NUL as a piece; some sentencepiece versions read it as a byte instead.
    append_piece(proto, "\0", NORMAL)
    renamed = [
        "<|plugin|>",
        "<|interpreter|>",
        "<|action_end|>",
        "<|action_start|>",
        "<|im_end|>",
        "<|im_start|>",
    ]
    added = {0: token("<unk>"), 1: token("<s>"), 2: token("</s>")}
    for number, name in enumerate(renamed, start=141):
        added[append_piece(proto, f"[UNUSED_TOKEN_{number}]", USER_DEFINED)] = token(name)
    base = len(proto.pieces)
    added |= {base + offset: token(name) for offset, name in enumerate(IMAGE_TOKENS)}
    (folder / "tokenizer.model").write_bytes(proto.SerializeToString(deterministic=True))
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    write_settings(
        folder,
        added,
        base,
        dict(names),
        [*reversed(renamed[4:]), *reversed(renamed[2:4]), *reversed(renamed[:2]), *IMAGE_TOKENS],
        add_bos_token=True,
        add_eos_token=False,
        auto_map={"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]},
        chat_template=INTERNLM2_CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=8192,
        tokenizer_class="InternLM2Tokenizer",
    )


def make_phi3() -> None:
    """4B: Llama's SentencePiece with Phi-3's role tokens, which take the whitespace after them."""
    folder = FOLDER / "phi3"
    folder.mkdir(parents=True, exist_ok=True)
    proto = train_sentencepiece(
        580, (), dummy_prefix=True, bos="<s>", eos="</s>", newline_piece=False
    )
    base = len(proto.pieces)
    (folder / "tokenizer.model").write_bytes(proto.SerializeToString(deterministic=True))
    roles = [
        "<|assistant|>",
        "<|placeholder1|>",
        "<|placeholder2|>",
        "<|placeholder3|>",
        "<|placeholder4|>",
        "<|system|>",
        "<|end|>",
        "<|placeholder5|>",
        "<|placeholder6|>",
        "<|user|>",
    ]
    added = {
        0: token("<unk>"),
        1: token("<s>"),
        2: token("</s>", special=False, rstrip=True),
        base: token("<|endoftext|>"),
    }
    for offset, name in enumerate(roles, start=1):
        added[base + offset] = token(name, rstrip=name != "<|end|>")
    added |= {base + 11 + offset: token(name) for offset, name in enumerate(IMAGE_TOKENS)}
    write_settings(
        folder,
        added,
        base,
        {
            "bos_token": "<s>",
            "eos_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>",
            "unk_token": "<unk>",
        },
        list(IMAGE_TOKENS),
        add_bos_token=True,
        add_eos_token=False,
        clean_up_tokenization_spaces=False,
        legacy=False,
        model_max_length=8192,
        padding_side="left",
        sp_model_kwargs={},
        tokenizer_class="LlamaTokenizer",
        use_default_system_prompt=False,
    )


def make_yi() -> None:
    """40B: Yi's SentencePiece, whose chat tokens are control pieces 6 to 8, without BOS."""
    folder = FOLDER / "yi"
    folder.mkdir(parents=True, exist_ok=True)
    controls = ("<|Human|>", "<|Assistant|>", "<|System|>", "<|im_start|>", "<|im_end|>")
    proto = train_sentencepiece(
        580,
        (*controls, "<|im_sep|>"),
        dummy_prefix=False,
        bos="<|startoftext|>",
        eos="<|endoftext|>",
    )
    base = len(proto.pieces)
    (folder / "tokenizer.model").write_bytes(proto.SerializeToString(deterministic=True))
    added = {
        0: token("<unk>"),
        1: token("<|startoftext|>"),
        2: token("<|endoftext|>"),
        6: token("<|im_start|>", special=False),
        7: token("<|im_end|>"),
    }
    added |= {base + offset: token(name) for offset, name in enumerate(IMAGE_TOKENS)}
    write_settings(
        folder,
        added,
        base,
        {
            "bos_token": "<|startoftext|>",
            "eos_token": "<|im_end|>",
            "pad_token": "<unk>",
            "unk_token": "<unk>",
        },
        list(IMAGE_TOKENS),
        add_bos_token=False,
        add_eos_token=False,
        clean_up_tokenization_spaces=False,
        legacy=True,
        model_max_length=4096,
        sp_model_kwargs={},
        tokenizer_class="LlamaTokenizer",
        use_default_system_prompt=False,
    )


def train_byte_level(vocab_size: int, split: str) -> Tokenizer:
    """A byte-level BPE over all 256 bytes, split by the family's pattern before merging."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    return tokenizer


def make_qwen2() -> None:
    """1B: vocab.json and merges.txt, no tokenizer.json."""
    folder = FOLDER / "qwen2"
    folder.mkdir(parents=True, exist_ok=True)
    state = json.loads(train_byte_level(440, QWEN2_SPLIT).to_str())["model"]
    base = len(state["vocab"])
    vocab = dict(sorted(state["vocab"].items(), key=lambda entry: entry[1]))
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(merge) for merge in state["merges"])]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    chat = ["<|im_start|>", "<|im_end|>"]
    names = ["<|endoftext|>", *chat, *IMAGE_TOKENS]
    write_settings(
        folder,
        {base + offset: token(name) for offset, name in enumerate(names)},
        base,
        {
            "bos_token": None,
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "unk_token": None,
        },
        [*chat, *IMAGE_TOKENS],
        add_prefix_space=False,
        clean_up_tokenization_spaces=False,
        errors="replace",
        model_max_length=8192,
        split_special_tokens=False,
        tokenizer_class="Qwen2Tokenizer",
    )


def make_llama3() -> None:
    """76B: tokenizer.json, a BOS from its template, reserved tokens renamed to the chat tokens."""
    folder = FOLDER / "llama3"
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_byte_level(440, LLAMA3_SPLIT)
    base = tokenizer.get_vocab_size()
    names = [
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|reserved_special_token_2|>",
        "<|reserved_special_token_3|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|reserved_special_token_4|>",
        "<|eot_id|>",
        *IMAGE_TOKENS,
    ]
    tokenizer.add_special_tokens(names)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single="<|begin_of_text|> $A",
                pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1",
                special_tokens=[("<|begin_of_text|>", base)],
            ),
        ]
    )
    state = json.loads(tokenizer.to_str())
    # Files of that time hold each merge as one string; current libraries read both.
    state["model"]["merges"] = [" ".join(merge) for merge in state["model"]["merges"]]
    write_json(folder / "tokenizer.json", state)
    write_settings(
        folder,
        {base + offset: token(name) for offset, name in enumerate(names)},
        base,
        {
            "bos_token": "<|begin_of_text|>",
            "eos_token": "<|im_end|>",
            "pad_token": "<|end_of_text|>",
        },
        list(IMAGE_TOKENS),
        clean_up_tokenization_spaces=True,
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=8192,
        tokenizer_class="PreTrainedTokenizerFast",
    )


def main() -> None:
    make_internlm2()
    make_phi3()
    make_yi()
    make_qwen2()
    make_llama3()


if __name__ == "__main__":
    main()
