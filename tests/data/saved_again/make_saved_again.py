"""Records what transformers 5 writes when it saves configurations and tokenizers of the family.

    python -m tests.data.saved_again.make_saved_again [FOLDER]

from the root of this repository, with the version of transformers that README.md names. The
classes of OpenGVLab's remote code are stood in for by ones that set the same attributes in the
same order; transformers decides what becomes of them.
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaTokenizer,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedTokenizer,
    Qwen2Config,
)
from transformers.convert_slow_tokenizer import SentencePieceExtractor

from tests.miniature.configuration import LANGUAGE, configuration

HERE = Path(__file__).parent
TOKENIZERS = Path(__file__).parents[2] / "miniature" / "tokenizers"
FILES = ("tokenizer_config.json", "tokenizer.json", "added_tokens.json", "special_tokens_map.json")


def set_own(config: PreTrainedConfig, keys: str, values: dict[str, Any]) -> dict[str, Any]:
    """As the remote code does: its own attributes first, then the base class's constructor."""
    for key in keys.split():
        setattr(config, key, values.pop(key, None))
    return values


LANGUAGE_KEYS = """
vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads
hidden_act max_position_embeddings initializer_range rms_norm_eps use_cache rope_theta rope_scaling
"""
PHI3_KEYS = """
original_max_position_embeddings resid_pdrop embd_pdrop attention_dropout sliding_window
"""


class InternLM2Config(PreTrainedConfig):
    model_type = "internlm2"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**set_own(self, LANGUAGE_KEYS + "bias attn_implementation", kwargs))


class RemotePhi3Config(PreTrainedConfig):
    model_type = "phi3"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**set_own(self, LANGUAGE_KEYS + PHI3_KEYS, kwargs))


class InternVisionConfig(PreTrainedConfig):
    model_type = "intern_vit_6b"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)


LANGUAGES: dict[str, type[PreTrainedConfig]] = {
    "internlm2": InternLM2Config,
    "qwen2": Qwen2Config,
    "phi3": RemotePhi3Config,
    "yi": LlamaConfig,
    "llama3": LlamaConfig,
}


class InternVLChatConfig(PreTrainedConfig):
    model_type = "internvl_chat"

    def __init__(self, kind: str = "internlm2", **kwargs: Any) -> None:
        vision, language = kwargs.pop("vision_config", {}), kwargs.pop("llm_config", {})
        super().__init__(**kwargs)
        self.vision_config = InternVisionConfig(**vision)
        self.llm_config = LANGUAGES[kind](**language)

    def to_dict(self) -> dict[str, Any]:
        output = copy.deepcopy(self.__dict__)
        output["vision_config"] = self.vision_config.to_dict()
        output["llm_config"] = self.llm_config.to_dict()
        output["model_type"] = self.model_type
        return output


class InternLM2Tokenizer(PreTrainedTokenizer):
    """A slow tokenizer of remote code, as far as saving is concerned."""

    vocab_files_names = {"vocab_file": "./tokenizer.model"}  # noqa: RUF012

    def __init__(self, vocab_file: str, add_bos_token: bool = True, **kwargs: Any) -> None:
        from sentencepiece import SentencePieceProcessor

        self.pieces = SentencePieceProcessor(model_file=vocab_file)
        self.add_bos_token = add_bos_token
        super().__init__(**kwargs)

    @property
    def vocab_size(self) -> int:
        return int(self.pieces.get_piece_size())

    def get_vocab(self) -> dict[str, int]:
        return {self.pieces.id_to_piece(n): n for n in range(self.vocab_size)}

    def _convert_token_to_id(self, token: str) -> int:
        return int(self.pieces.piece_to_id(token))

    def _convert_id_to_token(self, index: int) -> str:
        return str(self.pieces.id_to_piece(index))

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> Any:
        return ()


def saved_config(config: PreTrainedConfig) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        values: dict[str, Any] = json.loads((Path(folder) / "config.json").read_text())
    return values


def configs() -> dict[str, Any]:
    """By tokenizer kind a whole config.json, and by name one of a language model alone."""
    found = {}
    for kind in LANGUAGES:
        values = copy.deepcopy(
            configuration(kind, "6b" if LANGUAGES[kind] is LlamaConfig else "300m")
        )
        found[kind] = saved_config(InternVLChatConfig(kind, **values))
    longrope = {**LANGUAGE["phi3"]["rope_scaling"], "type": "longrope"}
    found["phi3 by transformers"] = saved_config(
        Phi3Config(**LANGUAGE["phi3"] | {"rope_scaling": longrope})
    )
    for kind, config in (("qwen2", Qwen2Config), ("yi", LlamaConfig)):
        found[f"{kind} dynamic"] = saved_config(
            config(**LANGUAGE[kind] | {"rope_scaling": {"type": "dynamic", "factor": 3.0}})
        )
    return found


def save_tokenizers(folder: Path) -> None:
    classes = {"qwen2": AutoTokenizer, "phi3": LlamaTokenizer, "yi": LlamaTokenizer}
    classes |= {"llama3": AutoTokenizer, "internlm2": InternLM2Tokenizer}
    for kind, loader in classes.items():
        tokenizer = loader.from_pretrained(str(TOKENIZERS / kind))
        _keep(tokenizer, folder / kind)
    # What tools make that convert InternLM2's SentencePiece model for the fast tokenizers.
    extracted = SentencePieceExtractor(str(TOKENIZERS / "internlm2/tokenizer.model")).extract(None)
    settings = json.loads((TOKENIZERS / "internlm2/tokenizer_config.json").read_text())
    added = {int(n): entry["content"] for n, entry in settings["added_tokens_decoder"].items()}
    renamed = {n: added.get(n, piece) for piece, n in extracted["vocab"].items()}
    tokenizer = LlamaTokenizer(
        vocab={piece: n for n, piece in renamed.items()},
        merges=extracted["merges"],
        add_prefix_space=False,
        pad_token="</s>",
        add_bos_token=True,
    )
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [added[n] for n in sorted(added) if n > 2]}
    )
    _keep(tokenizer, folder / "internlm2-fast", tokenizer_class="InternLM2Tokenizer")


def _keep(tokenizer: Any, folder: Path, **changes: str) -> None:
    with tempfile.TemporaryDirectory() as saved:
        tokenizer.save_pretrained(saved)
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(Path(saved).iterdir()):
            if path.name in FILES:  # the pieces themselves are those of tests/miniature
                values = json.loads(path.read_text(encoding="utf-8"))
                if path.name == "tokenizer_config.json":
                    values |= changes
                text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
                (folder / path.name).write_text(text + "\n", encoding="utf-8")


def main(folder: Path) -> None:
    text = json.dumps(configs(), indent=1, sort_keys=True)
    (folder / "configs.json").write_text(text + "\n", encoding="utf-8")
    save_tokenizers(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
