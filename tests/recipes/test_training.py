"""The quickstart model's training code: prompts, branches, targets, layout, state."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sentencepiece import SentencePieceProcessor

from recipes.quickstart.training.branches import branch_logits, embed_prefix
from recipes.quickstart.training.dense import NOTHING, dense_targets
from recipes.quickstart.training.layout import CHECKPOINT, pack_wqkv, read_weights, write_weights
from recipes.quickstart.training.learner import Learner, Model
from recipes.quickstart.training.measure import answers_to
from recipes.quickstart.training.prompts import IGNORED, Prompts
from recipes.quickstart.training.samples import RULES, Sample, crop_sample, grid_sample
from recipes.quickstart.training.scenes import draw
from recipes.quickstart.training.words import WORDS, texts
from vlmc.checkpoint.huggingface import language_tensors, tower_tensors
from vlmc.checkpoint.source import open_checkpoint
from vlmc.image.decode import decode
from vlmc.models.language.load import load_decoder
from vlmc.models.vision.load import load_tower
from vlmc.text.prompt import PromptBuilder
from vlmc.text.template import TEMPLATES
from vlmc.text.tokenizer import load_tokenizer

QUESTIONS = ("Is there a hard hat?", "图中有几顶安全帽？", "Read the label.")
ANSWERS = ("yes", "2", "DANGER")


@pytest.fixture(scope="module")
def prompts() -> Prompts:
    return Prompts()


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    made = Model()
    made.initialize()
    return made.eval().requires_grad_(False)


def test_prompts_are_what_the_runtime_builds(prompts: Prompts) -> None:
    builder = PromptBuilder(load_tokenizer(CHECKPOINT), TEMPLATES["internlm2-chat"])
    for question in QUESTIONS:
        expected = builder.build(question, [2])
        assert tuple(prompts.prefix(2) + prompts.question(question)) == expected.ids
    for answer in ("DANGER", "47", "没有"):
        ids = [*prompts.model.encode(answer), prompts.end]
        assert prompts.text(ids) == builder.answer_text(ids) == answer


def test_answers_are_at_most_two_tokens_and_prompts_short(prompts: Prompts) -> None:
    processor: SentencePieceProcessor = prompts.model
    for text in (*WORDS, "47", "yes", "no", "有", "没有", "黄色", "white"):
        assert len(processor.encode(text)) <= 2
    assert max(len(processor.encode(text)) for text in texts()) < 20
    for text in ("Où est l'été? 🙂", "a  b\n\n c", "漢"):
        assert processor.decode(processor.encode(text)) == text


def test_a_branch_computes_what_its_question_computes_alone(prompts: Prompts, model: Model) -> None:
    features = torch.randn(2, 512, 256, generator=torch.Generator().manual_seed(1))
    branches = [prompts.branch(q, a) for q, a in zip(QUESTIONS, ANSWERS, strict=True)]
    ids = torch.zeros(2, 3, 24, dtype=torch.int64)
    for row, branch in enumerate(branches):
        assert len(branch.ids) == len(branch.targets)
        ids[:, row, : len(branch.ids)] = torch.tensor(branch.ids)
    together = branch_logits(model.decoder, embed_prefix(model.decoder, prompts, features), ids)
    for row, branch in enumerate(branches):
        whole = torch.tensor([*prompts.prefix(2), *branch.ids])
        embeddings = model.decoder.embed_tokens(whole).repeat(2, 1, 1)
        embeddings[:, whole == prompts.image] = features
        alone = model.decoder.logits(model.decoder(embeddings))[:, -len(branch.ids) :]
        torch.testing.assert_close(together[:, row, : len(branch.ids)], alone, atol=1e-4, rtol=1e-4)


def test_answers_are_greedy(prompts: Prompts, model: Model) -> None:
    tiles = np.random.default_rng(0).integers(0, 256, (1, 448, 448, 3), np.uint8)
    nothing = np.zeros((0, 4), np.float32)
    sample = Sample(tiles, nothing, nothing, np.zeros((0, 6), np.int64), (), ())
    arguments = (model.tower, model.decoder, prompts, sample)
    together = answers_to(*arguments, list(QUESTIONS), torch.no_grad)
    assert together == [answers_to(*arguments, [q], torch.no_grad)[0] for q in QUESTIONS]


@pytest.mark.parametrize("crop", [False, True])
def test_targets_lie_where_the_things_are(prompts: Prompts, crop: bool) -> None:
    scene = draw(4)
    image = decode(scene.jpeg)
    sample = (
        crop_sample(scene, image, np.random.default_rng(0))
        if crop
        else grid_sample(scene, image, RULES["original-6"], prompts, "pillow")
    )
    classes, middle = dense_targets(
        *(torch.from_numpy(a)[None] for a in (sample.windows, sample.boxes, sample.classes))
    )
    assert classes.shape == (1, 256 * len(sample.tiles), 6)
    for tile, (x0, y0, x1, y1) in enumerate(sample.windows):
        for place in range(256):
            row, column = divmod(place, 16)
            x, y = x0 + (column + 0.5) / 16 * (x1 - x0), y0 + (row + 0.5) / 16 * (y1 - y0)
            kinds = {
                int(c[0])
                for b, c in zip(sample.boxes, sample.classes, strict=True)
                if b[0] < x < b[2] and b[1] < y < b[3]
            }
            found = int(classes[0, tile * 256 + place, 0])
            assert found in (kinds or {found}) or found == NOTHING or not kinds
            if bool(middle[0, tile * 256 + place]):
                assert found != NOTHING
    assert (classes[..., 0] == NOTHING).any()
    label = classes[0][:, 4] != IGNORED
    assert set(classes[0][label, 4].tolist()) == {8} and set(classes[0][label, 5].tolist()) == {2}


def test_the_checkpoint_is_read_back_by_both_readers(tmp_path: Path, model: Model) -> None:
    for file in CHECKPOINT.glob("*.json"):
        shutil.copy(file, tmp_path)
    shutil.copy(CHECKPOINT / "tokenizer.model", tmp_path)
    write_weights(model.tower, model.decoder, tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size < 8_000_000
    tower, decoder = read_weights(tmp_path)
    with open_checkpoint(tmp_path) as checkpoint:
        config, weights = checkpoint.config, checkpoint.weights
        loaded = {
            **load_tower(
                config, tower_tensors(weights, config), dtype=torch.float32, device="cpu"
            ).state_dict(),
            **load_decoder(
                config.language,
                language_tensors(weights, config.language),
                dtype=torch.float32,
                device="cpu",
            ).state_dict(),
        }
    written = {**model.tower.state_dict(), **model.decoder.state_dict()}
    for read in (loaded, {**tower.state_dict(), **decoder.state_dict()}):
        assert read.keys() == written.keys()
        for name, tensor in read.items():
            assert torch.equal(tensor, written[name].bfloat16().float()), name


def test_packing_keeps_the_heads_in_order() -> None:
    config = Model().decoder.config
    fused = torch.arange(512)[:, None] * torch.ones(1, 256)
    packed = pack_wqkv(config, fused)[:, 0].reshape(2, 4, 64)[:, :, 0]
    assert packed.tolist() == [[0, 64, 256, 384], [128, 192, 320, 448]]


def test_training_goes_on_from_what_was_saved(tmp_path: Path) -> None:
    def step(learner: Learner) -> None:
        learner.model.head(torch.ones(1, 256)).sum().backward()
        learner.step(1e-3, 0.2, 1.0)
        learner.progress.steps[0] += 1

    first = Learner(torch.device("cpu"), 0.99)
    first.begin(0)
    step(first)
    first.save(tmp_path)
    second = Learner(torch.device("cpu"), 0.99)
    second.restore(tmp_path)
    assert second.progress == first.progress
    for learner in (first, second):
        step(learner)
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name]), name
    for name, tensor in first.average.state_dict().items():
        assert torch.equal(tensor, second.average.state_dict()[name]), name
