"""What the original tokenizers make of difficult texts and ids."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import numpy as np

from tests.miniature.corpus import SYSTEM_MESSAGE

IMAGE = "<img><IMG_CONTEXT><IMG_CONTEXT></img>"
TEXTS = (
    "",
    " ",
    "   ",
    "\n",
    "\n\n",
    " \n ",
    "\t",
    "\r\n",
    "hello",
    " hello",
    "hello ",
    "  hello  world  ",
    "hello   world",
    "Hello, World!",
    "hello\nworld",
    "hello\n\nworld\n",
    "hello \n world",
    "a\tb\r\nc",
    "ends with many newlines\n\n\n",
    "    indented\n        more",
    SYSTEM_MESSAGE,
    "你好！",
    " 你好 世界 ",
    "请描述这张图片。\n",
    "中文English混合text，逗号,半角",
    "龘靐齉",
    "\u3000全角空格\u3000",
    "😀",
    "a😀b 👩‍👩‍👧‍👦!",
    "naïve café Ünïcödé",
    "cafe\u0301 e\u0301\u0323 \u1112\u1161\u11ab",
    "Ａｂｃ１２３ ﬁ ½",
    "\u200bzero\u200dwidth\ufeff",
    "\u00a0no-break\u00a0",
    "a\0b",
    "\0",
    "\x01\x02\x7f",
    "12345 67.89 1,000,000",
    "3.14159e-10",
    "it's I'm you're WE'LL they'VE",
    "don't . stop , now ? yes ! n't 's",
    "▁",
    "▁hello▁world ▁ x",
    "<|im_start|>",
    "<|im_end|>",
    "<|im_start|>user\nhello<|im_end|>",
    "<|im_start|>user\n  hello  <|im_end|>\n<|im_start|>assistant\n",
    f"<|im_start|>system\n{SYSTEM_MESSAGE}<|im_end|><|im_start|>user\n{IMAGE}\nWhat?<|im_end|>"
    "<|im_start|>assistant\n",
    "<|im_end|> <|im_start|>",
    "<|im_end|>  \n  <|im_start|>",
    "a<|im_end|>b",
    "a <|im_end|> b",
    f"<|system|>\n{SYSTEM_MESSAGE}<|end|><|user|>\n{IMAGE}\nWhat?<|end|><|assistant|>\n",
    "<|user|>\n\n  hello<|end|>\n<|assistant|>",
    "<|user|> \t\n<|assistant|>  x",
    "<|user|>\u3000x<|user|>\u00a0y",
    "<|end|> x<|endoftext|> y",
    f"one {IMAGE} two {IMAGE}",
    f"\n{IMAGE}\n\n{IMAGE}\n",
    f" {IMAGE} ",
    "<img></img>",
    "< img><IMG_CONTEXT <img",
    "<IMG_CONTEXT>text</img>",
    "<ref>the cat</ref><box>[[10, 20, 300, 400]]</box>",
    "<quad> [[1,2]] </quad>",
    "<s>hello</s>",
    "<s> hello </s> x",
    "<unk>",
    "a <unk> b",
    "[UNUSED_TOKEN_145]",
    "x[UNUSED_TOKEN_146]user\n[UNUSED_TOKEN_7]",
    "<0x41><0x0A>",
    "<|Human|> <|im_sep|> <|startoftext|> <|plugin|><|placeholder1|> x",
    "<|begin_of_text|>x<|end_of_text|> <|eot_id|>\n<|reserved_special_token_2|>",
    "<image>\nPlease describe the image shortly.",
    "def f(x):\n    return x  # 注释\n",
    "https://example.com/a?b=c&d=%20",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "the quick brown fox" * 6,
)
RANDOM_SEQUENCES = 24


def tokenization(original: types.SimpleNamespace, folder: Path) -> dict[str, list[Any]]:
    """Ids and decoded text of the tokenizers in `folder`, by "<name>/encode" and "<name>/decode".

    `encode` has an entry for each of TEXTS; `decode` has random ids, of which models with random
    weights emit any, among them bytes that are not UTF-8 and special tokens.
    """
    result: dict[str, list[Any]] = {}
    for name, loader in original.tokenizers.items():
        tokenizer = loader.from_pretrained(str(folder / name))
        encoded = []
        for text in TEXTS:
            ids = tokenizer(text).input_ids
            encoded.append(
                {
                    "text": text,
                    "ids": ids,
                    "decoded": tokenizer.decode(ids, skip_special_tokens=True),
                }
            )
        generator = np.random.PCG64(11)
        decoded = []
        for index in range(RANDOM_SEQUENCES):
            draws = generator.random_raw(1 + index % 12)
            ids = [int(draw) % len(tokenizer) for draw in draws]
            decoded.append({"ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=True)})
        result |= {f"{name}/encode": encoded, f"{name}/decode": decoded}
    return result
