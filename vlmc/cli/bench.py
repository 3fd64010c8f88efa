"""The command that measures: questions a minute, and where the time goes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vlmc.cli.options import (
    PATH,
    build_extra,
    device_option,
    devices_option,
    json_option,
    print_json,
    reporting_errors,
)
from vlmc.errors import UsageError

if TYPE_CHECKING:
    from vlmc.bench.report import BenchReport

# Options of the other kind of measurement, which would have no effect.
_OF_ARTIFACTS = ("images", "tiles")
_OF_SYNTHETIC = ("cases", "language", "vision")
_CASES = "13,7,2,1"


@click.command()
@click.argument("artifacts", metavar="[ARTIFACT]...", nargs=-1, type=PATH)
@click.option("--synthetic", metavar="SHAPE", help="Random weights of a shape: internvl2-8b.")
@click.option("--images", metavar="INPUT", help="A folder, a quoted glob or an image file.")
@click.option("--question", "questions", multiple=True, metavar="TEXT", help="Repeatable.")
@click.option("--tiles", metavar="RULE", help="The tile rule instead of the artifact's.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), help="[default: 5]")
@click.option("--choices", metavar="A,B", help="Score these answers instead of generating one.")
@click.option(
    "--runs",
    type=click.IntRange(min=3),
    default=3,
    show_default=True,
    help="Measured runs after a warm-up.",
)
@click.option(
    "--requests",
    metavar="N",
    help="Requests of a run; with --cases one number, or one for each case.",
)
@device_option
@devices_option
@click.option(
    "--engine",
    metavar="NAME",
    help="The vision engine instead of the first that fits; eager is plain torch. With "
    "--synthetic: inductor (compiled first, on GPUs) or eager.",
)
@click.option("--cases", metavar="TILES", help=f"Pictures by their tiles. [default: {_CASES}]")
@click.option("--language", metavar="P", help="bf16, fp8, w4a16 or fp32; several with commas.")
@click.option("--vision", metavar="P", help="bf16, fp16, fp8 or fp32; several with commas.")
@click.option(
    "--prefix-cache",
    type=click.Choice(["off", "text", "content"]),
    default="off",
    show_default=True,
    help="What requests of a run reuse of each other.",
)
@click.option(
    "--max-batch-tokens",
    type=click.IntRange(min=256),
    help="The most tokens of a step, instead of the artifact's.",
)
@click.option("--ladder", is_flag=True, help="Pull the levers one after another.")
@click.option("--price-per-hour", type=float, metavar="X", help="Of the machine, for the cost.")
@click.option(
    "-o", "--output", type=PATH, help="The folder for bench.json, bench.html and the cases."
)
@json_option
@reporting_errors
def bench(as_json: bool, ladder: bool, **options: Any) -> None:
    """Measure ARTIFACTs side by side, or a model with random weights.

    Every run answers all requests, from encoded images to text. Reports questions a minute,
    latency, the share of each stage, TFLOP/s, memory and cost.
    """
    from vlmc.cli.views.progress import show_progress

    given = {"ladder": ladder} | options
    _check(given)
    with show_progress(), build_extra():
        if options["synthetic"] is None:
            values = _artifacts(given, as_json)
        else:
            values = _synthetic(given, as_json)
    if as_json:
        print_json(values)
        _refuse_unwritten(values)
        return
    if values["ladder"] is not None:
        from vlmc.bench.ladder import ladder_lines

        click.echo("\n".join(ladder_lines(values["ladder"])))
    _refuse_unwritten(values)
    if options["output"] is not None:
        click.echo(options["output"] / "bench.html")


def _refuse_unwritten(values: Mapping[str, Any]) -> None:
    """After the results are printed, which is what is left of them then."""
    if values["not_written"]:
        raise UsageError(
            f"{values['not_written'][-1]}. The results are printed above; free some space or give "
            "another folder to -o before the next measurement."
        )


def _check(options: Mapping[str, Any]) -> None:
    """Refuse what cannot be measured, before anything is loaded."""
    artifacts, synthetic = options["artifacts"], options["synthetic"]
    if bool(artifacts) == (synthetic is not None):
        found = "both are" if artifacts else "neither is"
        raise UsageError(
            f"vlmc bench takes artifacts or --synthetic, and {found} given. Name the folder of an "
            "artifact, or a shape such as --synthetic internvl2-8b."
        )
    for name in _OF_SYNTHETIC if artifacts else _OF_ARTIFACTS:
        if options[name] is not None:
            kind = "artifacts" if artifacts else "--synthetic"
            raise UsageError(f"--{name} has no effect on {kind}; leave it out")
    if artifacts and options["images"] is None:
        raise UsageError(
            "--images is missing: artifacts are asked about pictures of yours. Give a folder of "
            "images that are like those of the job."
        )
    for name, value in (
        ("--synthetic", synthetic is not None),
        ("--ladder", options["ladder"]),
        ("--engine eager", options["engine"] == "eager"),
    ):
        if options["devices"] > 1 and value:
            raise UsageError(f"{name} runs on one device; leave it or --devices out")
    price = options["price_per_hour"]
    if price is not None and not 0 < price < float("inf"):
        raise UsageError(f"--price-per-hour is {price}; it must be above 0, in any currency")
    if options["choices"] is not None and options["max_new_tokens"] is not None:
        raise UsageError(
            "--choices and --max-new-tokens are both given, but choices are scored whole; leave "
            "one out"
        )


def _artifacts(options: Mapping[str, Any], as_json: bool) -> dict[str, Any]:
    from vlmc.bench.run_artifacts import Serving, bench_artifacts, climb_artifacts
    from vlmc.bench.workload import Workload
    from vlmc.runtime.engines.selection import find_device

    serving = Serving(
        device=options["device"],
        devices=options["devices"],
        engine=options["engine"],
        tiles=options["tiles"],
        prefix_cache=options["prefix_cache"],
        max_batch_tokens=options["max_batch_tokens"],
    )
    texts, length, choices = _questions(options)
    counts = _numbers("--requests", options["requests"])
    if len(counts) > 1:
        raise UsageError("--requests takes one number with artifacts, since they share a workload")
    images = _images(options["images"], counts[0] if counts else None, len(texts))
    workload = Workload(images, texts, length, choices)
    report = _report(options, find_device(options["device"]), as_json)
    measure = climb_artifacts if options["ladder"] else bench_artifacts
    return measure(options["artifacts"], workload, serving, options["runs"], report)


def _synthetic(options: Mapping[str, Any], as_json: bool) -> dict[str, Any]:
    from vlmc.artifact.manifest import RuntimeRules
    from vlmc.bench.run_synthetic import Questions, bench_synthetic, climb_synthetic
    from vlmc.bench.synthetic.cases import find_case
    from vlmc.bench.synthetic.precisions import engine_kind, read_precisions
    from vlmc.bench.synthetic_models import SyntheticModels
    from vlmc.runtime.engines.selection import find_device

    device = find_device(options["device"])
    models = SyntheticModels(options["synthetic"], device)
    kind = engine_kind(options["engine"], device)
    ladder = options["ladder"]
    precisions = read_precisions(
        options["language"] or ("fp8" if ladder else "bf16"), options["vision"] or "bf16"
    )
    batch = options["max_batch_tokens"]
    rules = RuntimeRules(prefix_cache=options["prefix_cache"])
    if batch is not None:
        rules = RuntimeRules(prefix_cache=options["prefix_cache"], max_batch_tokens=batch)
    questions = Questions(*_questions(options))
    counts = _numbers("--requests", options["requests"])
    runs, report = options["runs"], _report(options, device, as_json)
    if ladder:
        if options["cases"] is not None or len(precisions) > 1 or len(counts) > 1:
            raise UsageError(
                "--ladder has pictures of its own and ends in one pair of precisions; leave "
                "--cases out, and give one --language, one --vision, one number of --requests"
            )
        count = counts[0] if counts else None
        return climb_synthetic(models, kind, precisions[0], count, questions, rules, runs, report)
    cases = [find_case(tiles) for tiles in _numbers("--cases", options["cases"] or _CASES)]
    if len(counts) not in (0, 1, len(cases)):
        raise UsageError(
            f"--requests has {len(counts)} numbers for {len(cases)} cases; give one, or one each"
        )
    usual = [case.usual_requests(device) for case in cases]
    counts = counts * len(cases) if len(counts) == 1 else counts or usual
    asked = list(zip(cases, counts, strict=True))
    return bench_synthetic(models, kind, precisions, asked, questions, rules, runs, report)


def _report(options: Mapping[str, Any], device: Any, as_json: bool) -> BenchReport:
    """Where results go: lines on stdout as they come, unless the whole is printed as JSON."""
    from vlmc.bench.report import BenchReport
    from vlmc.bench.summary import case_lines

    def show(case: Mapping[str, Any]) -> None:
        if not as_json:
            click.echo("\n".join(case_lines(case)))

    shown = {name: value for name, value in options.items() if value not in (None, (), False)}
    return BenchReport(
        device,
        {name: _plain(value) for name, value in shown.items()},
        output=options["output"],
        price_per_hour=options["price_per_hour"],
        on_case=show,
    )


def _plain(value: Any) -> Any:
    """As JSON has it."""
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def _questions(
    options: Mapping[str, Any],
) -> tuple[tuple[str, ...], int, tuple[str, ...] | None]:
    """Questions, the length of answers, and choices."""
    from vlmc.bench.workload import QUESTION

    choices = options["choices"]
    labels = None if choices is None else tuple(part.strip() for part in choices.split(","))
    return options["questions"] or (QUESTION,), options["max_new_tokens"] or 5, labels


def _images(text: str, requests: int | None, questions: int) -> list[bytes]:
    """The files' bytes; as many as `requests` take."""
    from vlmc.jobs.input.image_files import ImageFiles
    from vlmc.jobs.input.open import open_input

    rows = open_input(text)
    if not isinstance(rows, ImageFiles):
        raise UsageError(f"{text}: is a table; vlmc bench takes a folder, a glob or an image file")
    paths = rows.paths
    if requests is not None:
        count = -(-requests // questions)
        if count > len(paths):
            raise UsageError(
                f"--requests {requests} takes {count} images, and {text} has {len(paths)}. Give "
                "more images or more questions, or a smaller number."
            )
        paths = paths[:count]
    return [path.read_bytes() if isinstance(path, Path) else path.read() for path in paths]


def _numbers(option: str, text: str | None) -> list[int]:
    """Whole numbers above 0, with commas between them."""
    if text is None:
        return []
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise UsageError(f"{option} is {text!r}; it takes numbers above 0, such as 13,7,2,1")
    return [int(part) for part in parts]
