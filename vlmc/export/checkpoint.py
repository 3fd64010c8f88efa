"""An artifact's weights as a checkpoint that transformers, vLLM, SGLang or LMDeploy loads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from vlmc.artifact.integrity import Artifact
from vlmc.artifact.language_files import FOLDER as LANGUAGE
from vlmc.artifact.vision_files import TOWER, payload_name
from vlmc.compile.language.weights import write_shards
from vlmc.export.chat_template import ChatTemplate
from vlmc.export.config import Sources, chat_config, hf_config
from vlmc.export.fast_tokenizer import check_ids, fast_tokenizer
from vlmc.export.limits import READ_DYNAMIC_ROPE, Engine, engine_tiles, notes, refuse
from vlmc.export.new_folder import new_folder
from vlmc.export.processor import processor_files, tokenizer_config
from vlmc.export.weights import hf_tower_tensors, language_tensors, tower_tensors
from vlmc.files.strict_json import read_json, write_json
from vlmc.models.vision.tower_file import read_tower_config
from vlmc.text.prompt import IMAGE_PLACEHOLDER, IMAGE_TOKEN
from vlmc.text.template import TEMPLATES
from vlmc.text.tokenizer import Tokenizer, load_tokenizer

# Engines that tokenize a rendered template as any text, and would add a second BOS.
_TEMPLATE_ALONE_ADDS_BOS = ("sglang", "lmdeploy")
_QUESTIONS = ("Is a hard hat visible?", "图中有什么？\n", "  3.14  résumé  ")


def export_checkpoint(artifact: Artifact, engine: Engine, output: Path) -> list[str]:
    """Write the new folder `output`, with one shard of weights in memory at a time.

    Returns:
        What the engine does not do as this artifact does, one sentence each.

    Raises:
        UsageError: the engine cannot run this artifact, or `output` exists.
        TokenizerError: the tokenizer has no tokenizer.json with the same ids.
        CheckpointError: a weight of the tower is beyond the range of the model's dtype.
    """
    manifest, language = artifact.manifest, artifact.folder / LANGUAGE
    tokenizer = load_tokenizer(language)
    tower = artifact.path(payload_name(TOWER))
    sources = Sources(
        manifest,
        read_tower_config(tower),
        read_json(language / "config.json"),
        tokenizer.token_id(IMAGE_TOKEN),
        tokenizer.vocab_size,
        engine_tiles(manifest.image.tiles),
    )
    refuse(sources, engine)
    dtype = getattr(torch, manifest.language_dtype)

    def tensors() -> Iterator[tuple[str, Tensor]]:
        original = tower_tensors(tower, sources.tower, dtype)
        if engine != "sglang":
            yield from hf_tower_tensors(original)
            yield from language_tensors(language)
            return
        yield from original
        qwen2 = sources.language["model_type"] == "qwen2"
        yield from language_tensors(language, zero_biases=None if qwen2 else dtype)

    with new_folder(output) as partial:
        _write_tokenizer(partial, tokenizer, sources, engine)
        for name, values in processor_files(sources.tiles).items() if engine != "sglang" else ():
            write_json(partial / name, values)
        write_json(
            partial / "config.json",
            chat_config(sources)
            if engine == "sglang"
            else hf_config(sources, dynamic_rope=engine in READ_DYNAMIC_ROPE),
        )
        write_json(partial / "generation_config.json", _generation_config(sources, engine))
        write_shards(partial, tensors())
    return notes(sources, engine)


def _generation_config(sources: Sources, engine: Engine) -> dict[str, object]:
    """Greedy: transformers goes by `do_sample`, which servers ignore. They go by `top_k`."""
    ids = {f"{key}_token_id": sources.language[f"{key}_token_id"] for key in ("bos", "eos", "pad")}
    return ids | {"do_sample": False} | ({} if engine == "hf" else {"top_k": 1})


def _write_tokenizer(folder: Path, tokenizer: Tokenizer, sources: Sources, engine: Engine) -> None:
    """tokenizer.json, its settings, and the chat template, after a comparison of their ids."""
    made = fast_tokenizer(tokenizer, adds_bos=engine not in _TEMPLATE_ALONE_ADDS_BOS)
    prompt = sources.manifest.prompt
    template = TEMPLATES[prompt.template]
    bos = None if tokenizer.bos_id is None else made.id_to_token(tokenizer.bos_id)
    begins = tokenizer.encode("")[:1] == [tokenizer.bos_id]
    plain = template.render(prompt.system_message, (), _QUESTIONS[0])
    # Some tokenizers put a space before the first token, which a tokenizer.json leaves out.
    spaced = made.encode(plain, add_special_tokens=False).ids != tokenizer.encode(plain)[begins:]
    chat = ChatTemplate(
        template,
        prompt.system_message,
        begin=(bos or "") * begins + " " * spaced,
        image=IMAGE_PLACEHOLDER if engine == "sglang" else IMAGE_TOKEN,
    )
    check_ids(
        made,
        tokenizer,
        {
            chat.render(history, question): tokenizer.encode(
                template.render(prompt.system_message, history, question)
            )
            for history in ((), ((_QUESTIONS[1], _QUESTIONS[2]),))
            for question in _QUESTIONS
        },
    )
    made.save(str(folder / "tokenizer.json"))
    pad = None if tokenizer.pad_id is None else made.id_to_token(tokenizer.pad_id)
    settings = tokenizer_config(
        bos=bos,
        stop=template.separator.strip(),
        pad=pad,
    )
    write_json(folder / "tokenizer_config.json", settings)
    (folder / "chat_template.jinja").write_text(chat.jinja(), encoding="utf-8")
