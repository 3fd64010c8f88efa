"""An artifact and a source whose vocabulary is padded answer with the tokenizer's tokens alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from tests.artifacts import build_once
from tests.models import loaded
from tests.padded import padded
from vlmc import load
from vlmc.artifact.manifest import PromptRules
from vlmc.models.language import reference_loop
from vlmc.text.template import TEMPLATES
from vlmc.verify.dataset import read_dataset
from vlmc.verify.source import open_source

PADDING = 24


def test_answers_are_tokens_of_the_tokenizer(
    miniature: Path, images: Path, pictures: list[npt.NDArray[np.uint8]], tmp_path: Path
) -> None:
    folder = padded(miniature, tmp_path / "padded", PADDING)
    requests = [(picture, text) for picture in pictures[:3] for text in ("What?", "Is it?", "x")]
    rules = PromptRules("internlm2-chat", TEMPLATES["internlm2-chat"].system_message)
    with load(build_once(folder, tmp_path / "artifact"), device="cpu", tiles="single") as model:
        size = model._prompts._tokenizer.vocab_size
        decoder = loaded.load(folder).decoder
        # In half of the prompts the best of all ids would be one of the padding.
        chosen = []
        with torch.inference_mode():
            for (picture, _), answer in zip(
                requests, model.generate(requests, max_new_tokens=1), strict=True
            ):
                features = model.encode([picture])
                ids = answer.prompt_token_ids
                row = reference_loop.embed(decoder, ids, max(set(ids), key=ids.count), features)
                chosen.append(int(decoder.lm_head(decoder(row[None]))[0, -1].argmax()))
        assert max(chosen) >= size == decoder.lm_head.out_features - PADDING, "else no test"
        answers = model.generate(requests, max_new_tokens=8)
        assert max(token for answer in answers for token in answer.token_ids) < size
    line = '{{"image": "{}/448x448.jpg", "prompt": "{}"}}\n'
    (tmp_path / "eval.jsonl").write_text("".join(line.format(images, text) for text in "abcdef"))
    questions = read_dataset(tmp_path / "eval.jsonl").questions
    with open_source(folder, rules, "float32") as source:
        # An id of the padding has no text, and would be an error.
        assert len(list(source.answers(questions))) == len(questions)
