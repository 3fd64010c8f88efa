"""transformers loads an export without remote code, and computes what vlmc computes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests import oracle
from tests.export.conftest import Exported
from tests.export.reference import logits, processor, prompts
from tests.text.kinds import KINDS, tokenizer
from vlmc.export.fast_tokenizer import fast_tokenizer
from vlmc.image.preprocess import MEAN, STD, make_tiles
from vlmc.image.resize import Resampler
from vlmc.image.tiles import TILE_SIZE, TileRule, choose_grid
from vlmc.models.vision.tower import normalize_tiles

transformers = pytest.importorskip("transformers", reason="needs transformers")
# One process exports what these tests share.
pytestmark = pytest.mark.xdist_group("export")
# The four architectures, both towers.
ARCHITECTURES = ("internlm2-300m", "qwen2-300m", "phi3-300m", "llama-yi-6b")
# Largest difference of logits as a share of the largest logit. bf16 has 8 bits; transformers rounds
# activations of fp8 token by token, which vlmc does on a GPU alone.
ERRORS = {"": 2e-5, "w4a16": 2e-5, "bf16": 3e-2, "fp8": 1e-1}

# Mean difference of pixels from transformers' (Pillow's bicubic), of 255.
ERRORS_OF_RESAMPLERS: dict[Resampler, float] = {"pillow": 1e-3, "opencv": 1.5}


def random_tiles(count: int) -> torch.Tensor:
    values = np.random.default_rng(0).integers(0, 256, (count, TILE_SIZE, TILE_SIZE, 3), np.uint8)
    return torch.from_numpy(values)


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        *((name, "") for name in ARCHITECTURES),
        ("internlm2-300m", "bf16"),
        ("internlm2-300m", "w4a16"),
        ("internlm2-300m", "fp8"),
    ],
)
def test_logits_are_equal(name: str, variant: str, exported: Callable[..., Exported]) -> None:
    made = exported(name, "hf", variant)
    tiles = random_tiles(1)
    ids = list(prompts(made.artifact).build("What color is it?", [len(tiles)]).ids)
    expected = logits(made.artifact, ids, tiles)
    model, info = transformers.AutoModelForImageTextToText.from_pretrained(
        made.folder, output_loading_info=True
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    pixels = normalize_tiles(tiles, torch.float32).to(model.dtype)
    with torch.inference_mode():
        found = model(input_ids=torch.tensor([ids]), pixel_values=pixels).logits[0].float()
    assert found.shape == expected.shape
    worst = float((found - expected).abs().max() / expected.abs().max())
    assert worst < ERRORS[variant]
    assert int(found[-1].argmax()) == int(expected[-1].argmax())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_prompts_have_the_same_ids(name: str, exported: Callable[..., Exported]) -> None:
    made = exported(name)
    own, other = prompts(made.artifact), processor(made.folder)
    image = Image.new("RGB", (TILE_SIZE, TILE_SIZE))
    cases = [case for case in oracle.chats(name) if not case.joined]
    assert len(cases) >= 6
    for case in cases:
        messages = []
        for question, answer in case.history:
            messages += [{"role": "user", "content": question}]
            messages += [{"role": "assistant", "content": answer}]
        asked = case.question
        if case.tiles and "<image>" not in asked and not case.history:
            asked = f"<image>\n{asked}"
        messages.append({"role": "user", "content": asked})
        for message in messages:
            message["content"] = message["content"].replace("<image>", "<IMG_CONTEXT>")
        text = other.apply_chat_template(messages, add_generation_prompt=True)
        given_images = [image] * len(case.tiles)
        found = other(images=given_images or None, text=text, add_special_tokens=False)
        tiles = [1] * len(case.tiles)
        expected = own.build(case.question, tiles, case.history).ids
        assert found["input_ids"][0] == list(expected), case.case


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_message_with_an_image_is_the_runtimes_prompt(
    name: str, exported: Callable[..., Exported]
) -> None:
    made = exported(name)
    question = "Is a hard hat visible?"
    image = Image.fromarray(random_tiles(1)[0].numpy()).resize((480, 320))
    content = [{"type": "image", "image": image}, {"type": "text", "text": question}]
    found = processor(made.folder).apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    assert found["input_ids"][0].tolist() == list(prompts(made.artifact).build(question, [7]).ids)
    assert found["pixel_values"].shape == (7, 3, TILE_SIZE, TILE_SIZE)


def test_a_system_message_replaces_the_artifacts(exported: Callable[..., Exported]) -> None:
    made = exported("internlm2-300m")
    text = processor(made.folder).apply_chat_template(
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    )
    assert text == ("<s><|im_start|>system\nBe brief.<|im_end|><|im_start|>user\nHi<|im_end|>")


# Texts after an added token, as all of a prompt are. Combining marks are left out: Qwen2's own
# tokenizer composes the whole text, also with the ">" of a token, by the Unicode of Python.
inner = st.text(
    st.characters(exclude_categories=["Cs", "Mn"], exclude_characters="\0<["), max_size=30
)
fast = cache(lambda kind: fast_tokenizer(tokenizer(kind), adds_bos=True))


def test_letters_with_marks_are_composed_alike() -> None:
    for text in ("re\u0301sume\u0301", "a\u0308 u\u0308", "n\u0303o"):
        assert fast("qwen2").encode(f"<img>{text}").ids == tokenizer("qwen2").encode(f"<img>{text}")


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(text=inner)
def test_texts_inside_prompts_have_the_same_ids(kind: str, text: str) -> None:
    made = fast(kind)
    for whole in (f"<img>{text}</img>", f"<img>{text}"):
        assert made.encode(whole).ids == tokenizer(kind).encode(whole)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_have_the_same_texts(kind: str) -> None:
    made = fast_tokenizer(tokenizer(kind), adds_bos=False)
    for text in ("Is it? yes 你好", "3.14 , and more .", "it 's  a ' b ' do n't", "a\n\n  b"):
        ids = tokenizer(kind).encode(f"<img>{text}")
        ids = ids[ids.index(tokenizer(kind).token_id("<img>")) + 1 :]
        assert made.decode(ids).strip() == tokenizer(kind).decode(ids).strip()


def test_tiles_follow_the_published_rule(exported: Callable[..., Exported]) -> None:
    images = processor(exported("internlm2-300m").folder).image_processor
    for grid in oracle.grids():
        limits = {"min_patches": grid.min_num, "max_patches": grid.max_num}
        found = images.get_number_of_image_patches(
            grid.height, grid.width, {"crop_to_patches": True, **limits}
        )
        rule = TileRule("original", min=grid.min_num, max=grid.max_num)
        assert found == choose_grid(grid.width, grid.height, rule).tiles, grid


@pytest.mark.parametrize("size", [(480, 320), (320, 480), (448, 448), (1000, 300)])
def test_pixels_are_within_the_resamplers_error(
    size: tuple[int, int], exported: Callable[..., Exported]
) -> None:
    made = exported("internlm2-300m")
    image = Image.open(oracle.IMAGES / "480x320.jpg").convert("RGB").resize(size)
    found = processor(made.folder).image_processor(image, crop_to_patches=True, return_tensors="np")
    pixels = np.stack(found["pixel_values"]).transpose(0, 2, 3, 1)
    values = (pixels * np.array(STD) + np.array(MEAN)) * 255
    for resampler, mean_error in ERRORS_OF_RESAMPLERS.items():
        tiles = make_tiles(np.array(image), TileRule("original"), resampler)
        assert values.shape == tiles.shape
        assert np.abs(values - tiles).mean() < mean_error
