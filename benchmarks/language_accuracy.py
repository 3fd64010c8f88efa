"""Accuracy of 4-bit weights on the quickstart: `python -m benchmarks.language_accuracy`.

Quantizes the quickstart's language model with AWQ, GPTQ and RTN and answers the evaluation
questions. Calibration samples are drawn with five seeds, with images and from text only. All models
get the same fp32 features under the recipe's tile rule and compute in fp32, so only the weights
differ. Reports:

- agreement: answers equal to the unquantized model's, after normalization;
- recall of the positive labels, and exact match with the labels;
- KL divergence of the unquantized model's next-token distribution to the quantized one's, in nats,
  averaged over the tokens of the unquantized model's answers, including the stop token.

RTN gives a single model. `--rescaled N` estimates its variance with N models whose weights are
multiplied by random factors near 1 for each input before rounding, and divided by them afterwards.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.models.linears.quantized import int4
from tests.quantized import dequantized
from vlmc.checkpoint.huggingface import language_config_json, language_tensors, tower_tensors
from vlmc.checkpoint.source import Checkpoint, open_checkpoint
from vlmc.compile.calibration.dataset import Modality, read_calibration
from vlmc.compile.language.quantization.embeddings import write_embeddings
from vlmc.compile.language.quantization.settings import Method, Settings
from vlmc.compile.language.weights import write_quantized
from vlmc.image.decode import decode
from vlmc.image.preprocess import make_tiles
from vlmc.models.language.decoder import Decoder
from vlmc.models.language.kv_cache import KVCache
from vlmc.models.language.load import load_decoder
from vlmc.models.language.reference_loop import Sampling, generate, prefill
from vlmc.models.language.splice import splice
from vlmc.models.vision.load import load_tower
from vlmc.models.vision.tower import normalize_tiles
from vlmc.recipe.read import read_recipe
from vlmc.recipe.resolve import resolve
from vlmc.text.prompt import PromptBuilder
from vlmc.text.template import TEMPLATES
from vlmc.verify.metrics import LabelledAnswer, normalize, score

QUICKSTART = Path(__file__).parents[1] / "recipes" / "quickstart"
METHODS: tuple[Method, ...] = ("gptq", "awq")
NEW_TOKENS = 8
# Number of values → two-sided 95 % quantile of Student's t.
T_OF = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
RESCALED_SPREAD = 0.05


@dataclass(frozen=True, slots=True)
class Variant:
    """A quantization method, with its calibration samples and seed."""

    method: Method
    group_size: int = 128
    symmetric: bool = False
    modality: Modality = "image_text"
    samples: int = 0
    seed: int = 0

    @property
    def label(self) -> str:
        """A label without the seed."""
        shape = f"{self.method} g{self.group_size} {'sym' if self.symmetric else 'asym'}"
        return f"{shape} {self.modality} {self.samples}" if self.samples else shape


@dataclass(frozen=True, slots=True)
class Question:
    """A question, its embedded prompt (tokens, hidden), and the original model's answer."""

    label: str
    positive: tuple[str, ...]
    prompt: Tensor
    image: str
    shared: int  # length of the prefix up to the last image token
    answer: tuple[int, ...] = ()
    log_probabilities: Tensor | None = None  # (answer tokens, vocabulary)


class Bench:
    """The quickstart model, its embedded questions, and its own answers."""

    def __init__(self, device: str, images: int) -> None:
        recipe = read_recipe(QUICKSTART / "recipe.yaml")
        self.device = device
        self.checkpoint: Checkpoint = open_checkpoint(Path(recipe.model.checkpoint))
        self.config = self.checkpoint.config
        resolved = resolve(recipe, self.config)
        self.image = resolved.image_rules
        template = TEMPLATES[resolved.template]
        self.prompts = PromptBuilder(self.checkpoint.tokenizer, template, resolved.system_message)
        weights = self.checkpoint.weights
        self.tensors = dict(language_tensors(weights, self.config.language))
        self.original = self.decoder(self.tensors)
        tower = load_tower(
            self.config, tower_tensors(weights, self.config), dtype=torch.float32, device=device
        )
        lines = [
            json.loads(line)
            for line in (QUICKSTART / "eval.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        # Select images evenly from the file, with all their questions.
        names = list(dict.fromkeys(line["image"] for line in lines))
        chosen = set(names[:: max(1, len(names) // images)])
        seen: dict[str, tuple[int, Tensor]] = {}
        questions = []
        for line in (line for line in lines if line["image"] in chosen):
            if line["image"] not in seen:
                pixels = decode(QUICKSTART / line["image"], exif=self.image.exif)
                tiles = torch.from_numpy(make_tiles(pixels, self.image.tiles, self.image.resampler))
                with torch.inference_mode():
                    parts = [
                        tower(normalize_tiles(part.to(device), torch.float32))
                        for part in torch.split(tiles, 4)
                    ]
                seen[line["image"]] = len(tiles), torch.cat(parts).flatten(0, 1)
            count, features = seen[line["image"]]
            prompt = self.prompts.build(line["prompt"], [count])
            table = self.original.embed_tokens.weight
            embedded = splice(table, prompt.ids, prompt.image_token_id, [features])
            last = len(prompt.ids) - prompt.ids[::-1].index(prompt.image_token_id)
            positive = tuple(line.get("positive", ()))
            questions.append(Question(line["label"], positive, embedded, line["image"], last))
        self.questions = [
            replace(one, answer=answer, log_probabilities=said)
            for batch in batches(questions)
            for one, answer, said in self._answered(batch)
        ]

    def decoder(self, tensors: dict[str, Tensor]) -> Decoder:
        """Load a language model from tensors, in fp32."""
        return load_decoder(
            self.config.language, tensors.items(), dtype=torch.float32, device=self.device
        )

    @torch.inference_mode()
    def answers(self, decoder: Decoder, batch: Sequence[Question]) -> list[tuple[int, ...]]:
        """Greedy answers to a batch."""
        rows = [one.prompt for one in batch]
        start = prefill(decoder, rows, batch[0].shared, reserve_tokens=NEW_TOKENS)
        return generate(decoder, start, Sampling(NEW_TOKENS), self.prompts.stop_id)

    @torch.inference_mode()
    def distributions(
        self, decoder: Decoder, batch: Sequence[Question], answers: Sequence[tuple[int, ...]]
    ) -> list[Tensor]:
        """Log-probabilities (answer tokens, vocabulary) of each answer's tokens."""
        shared, rests = batch[0].shared, []
        for one, answer in zip(batch, answers, strict=True):
            ids = torch.tensor(answer[:-1], dtype=torch.int64, device=self.device)
            rests.append(torch.cat([one.prompt[shared:], decoder.embed_tokens(ids)]))
        counts = torch.tensor([len(rest) for rest in rests], device=self.device)
        first = KVCache(decoder.config, 1, shared, dtype=torch.float32, device=self.device)
        decoder(batch[0].prompt[None, :shared], first)
        rows = torch.zeros(len(rests), dtype=torch.int64, device=self.device)
        cache = first.select(rows, shared + int(counts.max()))
        padded = torch.nn.utils.rnn.pad_sequence(rests, batch_first=True)
        states = decoder(padded, cache, token_counts=counts)
        said = []
        for index, (one, answer) in enumerate(zip(batch, answers, strict=True)):
            start = len(one.prompt) - shared - 1
            logits = decoder.logits(states[index, start : start + len(answer)])
            said.append(logits.log_softmax(-1).cpu())
        return said

    def _answered(
        self, batch: Sequence[Question]
    ) -> Iterator[tuple[Question, tuple[int, ...], Tensor]]:
        answers = self.answers(self.original, batch)
        said = self.distributions(self.original, batch, answers)
        yield from zip(batch, answers, said, strict=True)

    def evaluate(self, decoder: Decoder) -> dict[str, float]:
        """Compute agreement, recall, exact match and KL divergence of a model."""
        divergence = tokens = agreed = 0.0
        judged = []
        for batch in batches(self.questions):
            said = self.distributions(decoder, batch, [one.answer for one in batch])
            changed = []
            texts = [self.prompts.answer_text(one.answer) for one in batch]
            for index, (one, quantized) in enumerate(zip(batch, said, strict=True)):
                expected = one.log_probabilities
                if expected is None:
                    raise RuntimeError("the original model must answer first")
                divergence += float((expected.exp() * (expected - quantized)).sum())
                tokens += len(one.answer)
                # The answers are equal up to the first token that differs.
                if tuple(quantized.argmax(-1).tolist()) != one.answer:
                    changed.append(index)
            answers = self.answers(decoder, [batch[index] for index in changed]) if changed else []
            given = list(texts)
            for index, answer in zip(changed, answers, strict=True):
                given[index] = self.prompts.answer_text(answer)
            for one, before, after in zip(batch, texts, given, strict=True):
                agreed += normalize(before) == normalize(after)
                judged.append(LabelledAnswer("", one.label, after, one.positive))
        scores = score(judged)
        return {
            "agreement": agreed / len(self.questions),
            "recall": scores.recall.value,
            "exact": scores.exact.value,
            "kl": divergence / tokens,
        }

    def rescaled(self, seed: int) -> dict[str, Tensor]:
        """RTN tensors (group 128, asymmetric) with random factors on the inputs."""
        generator = torch.Generator().manual_seed(seed)
        tensors = dict(self.tensors)
        for name, tensor in self.tensors.items():
            if ".layers." in name and tensor.dim() == 2:
                drawn = torch.randn(tensor.shape[1], generator=generator)
                factors = (RESCALED_SPREAD * drawn).exp()
                tensors[name] = int4(tensor.float() * factors, 128, symmetric=False)[1] / factors
        return tensors

    def quantize(self, variant: Variant, folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Quantize a model. Returns its tensors and its report."""
        embeddings = folder / "embeddings"
        embeddings.mkdir(parents=True)
        if variant.samples:
            drawn = read_calibration(
                QUICKSTART / "calibration.jsonl",
                variant.samples,
                variant.seed,
                modality=variant.modality,
            )
            write_embeddings(
                self.checkpoint, drawn, self.prompts, self.image, torch.bfloat16, embeddings
            )
        config = language_config_json(
            self.config.language, dtype="bfloat16", bos_id=1, eos_id=2, pad_id=2
        )
        settings = Settings(
            method=variant.method,
            group_size=variant.group_size,
            symmetric=variant.symmetric,
            dtype="bfloat16",
            layers=self.config.language.layers,
            samples=str(embeddings) if variant.samples else None,
        )
        language = folder / "language"
        language.mkdir()
        write_quantized(self.checkpoint, language, settings, config)
        report = json.loads((language / "report" / "language-quantization.json").read_bytes())
        return dequantized(load_file(language / "model.safetensors")), report


def batches(questions: Sequence[Question]) -> Iterator[list[Question]]:
    """Group the questions by image; each group shares the prompt up to the last image token."""
    for _, group in itertools.groupby(questions, key=lambda one: one.image):
        yield list(group)


def sizes(options: argparse.Namespace) -> list[tuple[Modality, int]]:
    """Modalities and sample counts of the calibration, without zero counts."""
    return [
        ("image_text", options.samples),
        ("text", options.samples if options.text else 0),
        ("text", options.text_samples),
    ]


def summary(values: Sequence[float]) -> dict[str, float]:
    """Mean, and half width of the 95 % interval over seeds."""
    count, mean = len(values), statistics.fmean(values)
    half = T_OF[count] * statistics.stdev(values) / count**0.5 if count > 1 else 0.0
    return {"mean": mean, "half_interval": half, "min": min(values)}


def main() -> None:
    """Quantize and evaluate models, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--images", type=int, default=1000, help="number of images")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument(
        "--text-samples", type=int, default=112, help="samples of a text-only run; 0: none"
    )
    parser.add_argument("--methods", default="awq,gptq")
    parser.add_argument("--text", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--seeds", type=int, default=5, choices=range(1, 11))
    parser.add_argument("--rescaled", type=int, default=0, choices=range(11))
    parser.add_argument("--workers", type=int, default=1, help="models quantized at once")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    start = time.perf_counter()
    bench = Bench(options.device, options.images)
    print(f"{len(bench.questions)} questions, {time.perf_counter() - start:.0f} s", flush=True)
    variants = [
        Variant("rtn"),
        Variant("rtn", group_size=32),
        *(
            Variant(method, modality=modality, samples=samples, seed=seed)
            for method in METHODS
            if method in options.methods.split(",")
            for modality, samples in sizes(options)
            if samples
            for seed in range(options.seeds)
        ),
    ]
    found: dict[str, list[dict[str, float]]] = {"unquantized": [bench.evaluate(bench.original)]}
    for seed in range(options.rescaled):
        run = bench.evaluate(bench.decoder(bench.rescaled(seed)))
        found.setdefault("rtn g128 asym, rescaled", []).append(run)
    reports: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(options.workers) as pool:
        folders = [Path(name) / str(index) for index in range(len(variants))]
        for variant, (tensors, report) in zip(
            variants, pool.map(bench.quantize, variants, folders), strict=True
        ):
            run = bench.evaluate(bench.decoder(tensors))
            found.setdefault(variant.label, []).append(run)
            reports.setdefault(variant.label, report)
            print(
                variant.label,
                variant.seed,
                run,
                f"{time.perf_counter() - start:.0f} s",
                flush=True,
            )
    table = {
        label: {key: summary([run[key] for run in runs]) for key in runs[0]}
        for label, runs in found.items()
    }
    print(f"{'':36} agreement  recall   exact    KL (± 95 % over seeds)")
    for label, row in table.items():
        print(
            f"{label:36} {row['agreement']['mean']:.4f}     {row['recall']['mean']:.4f}   "
            f"{row['exact']['mean']:.4f}   {row['kl']['mean']:.5f} ± "
            f"{row['kl']['half_interval']:.5f}"
        )
    if options.output is not None:
        values: dict[str, Any] = {
            "options": {key: str(value) for key, value in vars(options).items()},
            "variants": [asdict(variant) for variant in variants],
            "runs": found,
            "table": table,
            "reports": reports,
            "seconds": time.perf_counter() - start,
        }
        options.output.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
