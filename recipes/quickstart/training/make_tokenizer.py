"""Makes the quickstart model's tokenizer in `checkpoint/`; run again only before a new training.

    python -m recipes.quickstart.training.make_tokenizer

needs sentencepiece and protobuf. The files are committed, because a trainer's result may differ
between its versions and the trained embeddings hold for these ids alone.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from recipes.quickstart.training.words import COLOURS, MOST_COUNTED, WORDS, colour_word, texts

FOLDER = Path(__file__).parents[1] / "checkpoint"
SYSTEM_MESSAGE = (
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, "
    "是一个有用无害的人工智能助手。"
)
TRAINED_PIECES = 880
NORMAL, USER_DEFINED = 1, 4
FIRST_UNUSED = 141
RENAMED = (
    "<|plugin|>",
    "<|interpreter|>",
    "<|action_end|>",
    "<|action_start|>",
    "<|im_end|>",
    "<|im_start|>",
)
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
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + "
    "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ORDINARY_TEXT = (
    "Please describe the picture in a few words. What is shown here, and where is it?",
    "Answer with yes or no. The room has a door, two windows and a floor of wood.",
    "请描述这张图片。图中有什么？请回答是或否。你好！谢谢。",
    "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789",
    "! \" # $ % & ' ( ) * + , - . / : ; < = > ? @ [ \\ ] ^ _ ` { | } ~",
)


def corpus() -> list[str]:
    """Every line the model meets, the answers and roles so often that each becomes one piece."""
    answers = [*WORDS, *COLOURS, *(colour_word(colour, "zh") for colour in COLOURS)]
    answers += ["yes", "no", "是", "否", "有", "没有"]
    answers += [str(number) for number in range(MOST_COUNTED + 1)]
    roles = ["system\n" + SYSTEM_MESSAGE, "user\n", "assistant\n"]
    prompts = ["\n" + text for text in texts()]
    return [*prompts, *ORDINARY_TEXT, *answers * 60, *roles * 60]


def trained_model() -> Any:
    """A BPE model with byte fallback as a ModelProto; ids 0, 1 and 2 are unk, bos and eos."""
    buffer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()),
        model_writer=buffer,
        model_type="bpe",
        vocab_size=TRAINED_PIECES,
        byte_fallback=True,
        character_coverage=1.0,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        split_digits=True,
        num_threads=1,
        minloglevel=2,
    )
    proto: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    proto.ParseFromString(buffer.getvalue())
    return proto


def append_piece(proto: Any, piece: str, kind: int) -> int:
    """Add a piece after the last and return its id."""
    entry = proto.pieces.add()
    entry.piece = piece
    entry.score = -float(len(proto.pieces))
    entry.type = kind
    return len(proto.pieces) - 1


def added_token(content: str) -> dict[str, Any]:
    """One entry of `added_tokens_decoder`."""
    flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    return {"content": content, **flags, "special": True}


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    proto = trained_model()
    # InternLM2 holds the NUL character as a piece of its own.
    append_piece(proto, "\0", NORMAL)
    added = {number: added_token(name) for number, name in enumerate(("<unk>", "<s>", "</s>"))}
    for number, name in enumerate(RENAMED, start=FIRST_UNUSED):
        added[append_piece(proto, f"[UNUSED_TOKEN_{number}]", USER_DEFINED)] = added_token(name)
    base = len(proto.pieces)
    image_ids = {name: base + offset for offset, name in enumerate(IMAGE_TOKENS)}
    added |= {number: added_token(name) for name, number in image_ids.items()}
    (FOLDER / "tokenizer.model").write_bytes(proto.SerializeToString(deterministic=True))

    roles = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    additional = [*reversed(RENAMED), *IMAGE_TOKENS]
    settings = {
        "add_bos_token": True,
        "add_eos_token": False,
        "added_tokens_decoder": {str(number): added[number] for number in sorted(added)},
        "additional_special_tokens": additional,
        "auto_map": {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]},
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 8192,
        "tokenizer_class": "InternLM2Tokenizer",
        **roles,
    }
    write_json(FOLDER / "tokenizer_config.json", dict(sorted(settings.items())))
    write_json(
        FOLDER / "special_tokens_map.json", {"additional_special_tokens": additional, **roles}
    )
    write_json(FOLDER / "added_tokens.json", dict(sorted(image_ids.items())))
    print(f"{FOLDER}: {base} pieces, {base + len(IMAGE_TOKENS)} ids")


if __name__ == "__main__":
    main()
