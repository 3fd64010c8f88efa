"""Values that are each allowed and refused together, with the reason and the place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.recipe.texts import HEAD, refused, vision
from vlmc.recipe.read import read_recipe

DATA = "calibration: {dataset: some.jsonl}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "recipe.yaml"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            vision("fp8", "tensorrt, targets: [sm89, sm86]") + DATA,
            "8: vision.engines[0].targets[1] is sm86, which cannot be with tensorrt and "
            "vision.precision fp8: fp8 tensor cores came with sm89 (Ada). Allowed with tensorrt "
            "and fp8: sm89, sm90, sm100, sm120, sm121",
        ),
        (
            vision("fp8", "inductor, targets: [sm80]") + DATA,
            "8: vision.engines[0].targets[0] is sm80, which cannot be with inductor",
        ),
        (
            vision("bf16", "tensorrt-rtx, targets: [sm75]"),
            "8: vision.engines[0].targets[0] is sm75, which cannot be with tensorrt-rtx and "
            "vision.precision bf16: the tensor cores of sm75 (Turing) have no bf16",
        ),
        (
            vision("fp16", "tensorrt-rtx, targets: [sm90]"),
            "8: vision.engines[0].targets[0] is sm90, which cannot be with tensorrt-rtx and "
            "vision.precision fp16: TensorRT-RTX is for workstation cards and refuses Hopper",
        ),
        (
            vision("int8", "inductor") + DATA,
            "6: vision.precision is int8, which vision.engines[0], inductor, cannot run: int8 "
            "lives in the ONNX graph's quantize and dequantize nodes, which inductor does not "
            "read. With inductor, allowed: fp32, fp16, bf16, fp8",
        ),
        (
            vision("fp8", "inductor", "onnxruntime") + DATA,
            "6: vision.precision is fp8, which vision.engines[1], onnxruntime, cannot run: ONNX "
            "Runtime has no fp8 kernels for the CPU. With onnxruntime, allowed: fp32, fp16, int8",
        ),
        (vision("bf16", "onnxruntime"), "6: vision.precision is bf16, which vision.engines[0]"),
        (
            vision("fp16", "tensorrt-rtx"),
            "8: vision.engines[0].targets is required with tensorrt-rtx",
        ),
        (
            vision("fp16", "onnxruntime, targets: [sm89]"),
            "8: vision.engines[0].targets has no effect: onnxruntime runs on any CPU",
        ),
        (
            vision("fp16", "inductor, targets: []"),
            "8: vision.engines[0].targets is empty; give at least one",
        ),
        (
            vision("fp16", "inductor, targets: [sm88]"),
            "8: vision.engines[0].targets[0] is 'sm88', allowed: sm75, sm80, sm86, sm89",
        ),
        # Given twice.
        (
            vision("fp16", "tensorrt", "onnxruntime", "tensorrt"),
            "10: vision.engines[2]: tensorrt is given already by vision.engines[0]",
        ),
        (
            vision("fp16", "tensorrt, targets: [sm89, sm89]"),
            "8: vision.engines[0].targets[1]: tensorrt for sm89 is given already by "
            "vision.engines[0].targets[0]",
        ),
        (
            vision("fp16", "tensorrt, targets: [sm86]", "tensorrt, targets: [sm89, sm86]"),
            "9: vision.engines[1].targets[1]: tensorrt for sm86 is given already by "
            "vision.engines[0].targets[0]",
        ),
        (
            vision("fp16", "inductor", "inductor, targets: [sm90]"),
            "9: vision.engines[1].targets[0]: inductor for sm90 is given already by "
            "vision.engines[0]",
        ),
        # Profiles.
        (
            "vision:\n  profiles:\n    - {min: 1, opt: 4, max: 13}\n    - {min: 4, opt: 2, max: 8}",
            "8: vision.profiles[1] has min 4, opt 2 and max 8",
        ),
        ("vision: {profiles: [{min: 1, opt: 4, max: 2}]}", "5: vision.profiles[0] has min 1, opt"),
        ("vision: {profiles: [{min: 0, opt: 4, max: 4}]}", "5: vision.profiles[0] has min 0, opt"),
        ("vision: {profiles: [{min: 1, max: 4}]}", "5: vision.profiles[0].opt is required"),
        ("vision: {profiles: []}", "5: vision.profiles is empty"),
        (
            "vision: {profiles: [{min: 1, opt: 1, max: 1}, {min: 1, opt: 1, max: 1}]}",
            "5: vision.profiles[1] is the same as vision.profiles[0]",
        ),
        # The language model.
        (
            "language:\n  method: gptq",
            "6: language.method has no effect with language.scheme none. Remove the key, or set "
            "language.scheme to w4a16",
        ),
        ("language:\n  scheme: fp8\n  group_size: 128", "7: language.group_size has no effect"),
        ("language: {symmetric: false}", "5: language.symmetric has no effect with"),
        ("language: {keep: []}", "5: language.keep has no effect with language.scheme none"),
        (
            f"language: {{scheme: w4a16, keep: [a, a]}}\n{DATA}",
            "5: language.keep[1] is the same as language.keep[0]",
        ),
        (
            f"language: {{scheme: w4a16, group_size: 0}}\n{DATA}",
            "5: language.group_size is 0: it must",
        ),
        (
            f"language: {{scheme: w4a16, group_size: 100}}\n{DATA}",
            "is 100: it must be a multiple of 8",
        ),
        (
            vision("fp16", "inductor, targets: [sm86]") + "language: {scheme: fp8}",
            "8: vision.engines[0].targets[0] is sm86, and fp8 tensor cores came with sm89 (Ada): "
            "set language.scheme to w4a16 or none, or remove the target",
        ),
        (
            "  dtype: bf16\n" + vision("fp16", "inductor, targets: [sm75]"),
            "9: vision.engines[0].targets[0] is sm75, and the tensor cores of sm75 (Turing) have "
            "no bf16, which came with sm80: set model.dtype to fp16, or remove the target",
        ),
        # Calibration.
        (
            "language:\n  scheme: w4a16",
            "6: language.scheme w4a16 needs calibration.dataset: a file of JSON lines",
        ),
        ("language: {scheme: w4a16, method: gptq}", "5: language.scheme w4a16 needs calibration"),
        ("vision: {precision: int8}", "5: vision.precision int8 needs calibration.dataset"),
        (vision("fp8", "inductor"), "6: vision.precision fp8 needs calibration.dataset"),
        (
            "vision: {precision: int8}\ncalibration:\n  modality: text\n  dataset: some.jsonl",
            "7: calibration.modality is text, and vision.precision int8 is calibrated on images",
        ),
        (
            "vision: {precision: fp32}\ncalibration: {dataset: some.jsonl}",
            "6: calibration has no effect: fp16, int8 and fp8",
        ),
        (
            "language: {scheme: w4a16, method: rtn}\ncalibration: {samples: 3}",
            "6: calibration has no effect",
        ),
        ("calibration: {samples: 0}", "5: calibration.samples is 0: it must be greater than or"),
        (
            "language: {scheme: w4a16}\ncalibration: {dataset: ~nobody-of-this-name/x}",
            "6: calibration.dataset is '~nobody",
        ),
        # What runtime and accuracy may hold.
        ("runtime: {max_batch_tokens: 255}", "5: runtime.max_batch_tokens is 255: it must be"),
        ("runtime: {prefix_cache: images}", "is 'images', allowed: off, text, content"),
        ("accuracy: {normalize: [nfkd]}", "5: accuracy.normalize[0] is 'nfkd', allowed: nfkc"),
        ("accuracy: {normalize: [nfkc, nfkc]}", "5: accuracy.normalize[1] is the same as"),
        ("accuracy: {min_feature_cosine: 1.1}", "it must be auto, or a number above 0 and at"),
        ("accuracy: {min_feature_cosine: true}", "is True: it must be auto, or a number"),
        ("accuracy: {min_feature_cosine: .nan}", "is nan: it must be auto, or a number"),
        ("accuracy: {min_answer_agreement: 2}", "5: accuracy.min_answer_agreement is 2: it must"),
        ("accuracy: {max_recall_drop: .nan}", "5: accuracy.max_recall_drop is nan: it must be"),
        ("precision: fp16", "5: unknown key precision; did you mean vision.precision?"),
        ("dataset: x", "did you mean calibration.dataset or accuracy.dataset?"),
    ],
)
def test_impossible_combination(text: str, said: str, path: Path) -> None:
    message = refused(path, f"{HEAD}{text}\n")
    assert message.count("\n") == 0, message
    assert message.startswith("recipe.yaml:")
    assert said in message.removeprefix("recipe.yaml:"), message


@pytest.mark.parametrize(
    "text",
    [
        vision("int8", "tensorrt-rtx, targets: [sm80, sm120]", "onnxruntime") + DATA,
        vision("fp8", "tensorrt, targets: [sm89, sm90]", "inductor") + DATA,
        vision("fp16", "inductor, targets: [sm90]", "inductor"),
        "  dtype: fp16\n" + vision("fp16", "tensorrt-rtx, targets: [sm75]"),
        # Rounding looks at no data.
        "language: {scheme: w4a16, method: rtn}",
        "language: {scheme: w4a16}\ncalibration: {dataset: x.jsonl, modality: text}",
        "language: {scheme: fp8, keep: ['*.down_proj']}",
        "runtime: {prefix_cache: 'off'}",
        "vision: {profiles: [{min: 1, opt: 1, max: 1}]}",
    ],
)
def test_possible_combination(text: str, path: Path) -> None:
    path.write_text(f"{HEAD}{text}\n")
    assert read_recipe(path).name == "small"


def test_every_impossible_thing_is_told(path: Path) -> None:
    text = vision("fp8", "tensorrt-rtx, targets: [sm86, sm90]") + "language: {method: awq}\n"
    assert [line.split(" ")[1] for line in refused(path, HEAD + text).splitlines()] == [
        "vision.precision",
        "vision.engines[0].targets[0]",
        "vision.engines[0].targets[1]",
        "language.method",
    ]


def test_bare_off_is_the_word(path: Path) -> None:
    """YAML 1.1 reads `off` as false."""
    path.write_text(f"{HEAD}runtime: {{prefix_cache: off}}\n")
    assert read_recipe(path).runtime.prefix_cache == "off"
