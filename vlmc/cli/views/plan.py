"""A plan as tables for people."""

from __future__ import annotations

import os

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vlmc.builder.plan.memory import Memory
from vlmc.builder.plan.plan import Plan, PlannedStep
from vlmc.files.units import bytes_text, duration_text

_WIDE = 200
_STYLES = {"hit": "green", "miss": "yellow", "unknown": "magenta"}


def show_plan(plan: Plan, console: Console | None = None) -> None:
    """Print the plan; `console` None is stdout."""
    console = _stdout() if console is None else console
    if plan.refusals:
        _line(console, "this version's `vlmc build` refuses the recipe:", "bold red")
        for refusal in plan.refusals:
            _line(console, f"  {refusal}", "red")
        console.print()
    for text in plan.unknown:
        _line(console, text, "magenta")
    if plan.memory is None:
        console.print(_images(plan))
        return
    if plan.obstacles:
        _line(console, "this machine cannot run:", "bold red")
        for obstacle in plan.obstacles:
            _line(console, f"  {obstacle.step}: {obstacle.reason}", "red")
        console.print()
    console.print(_steps(plan))
    console.print()
    _line(console, f"expected time: {_time_of_build(plan)}")
    if any(step.state != "hit" for step in plan.steps):
        what = {"last build": f"the last build of {plan.name}"}.get(
            plan.compared_with, f"the most similar steps in the cache; {plan.name} was never built"
        )
        _line(console, f"compared with {what}")
    if plan.unread_bytes:
        unread = bytes_text(plan.unread_bytes)
        _line(console, f"{unread} of source files have no known digest yet and will be read first")
    console.print()
    console.print(_images(plan))
    console.print()
    console.print(_sizes(plan, plan.memory))
    for shortage in plan.shortages:
        console.print()
        _line(console, f"too little room: {shortage}", "bold red")


def _stdout() -> Console:
    console = Console(highlight=False)
    # Lines for a file or another program are not broken at a width that nobody looks at.
    return console if console.is_terminal else Console(highlight=False, width=_WIDE)


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style=style), soft_wrap=True)


def _time_of_build(plan: Plan) -> str:
    states = {step.state for step in plan.steps}
    text = f"{'at most ' if 'unknown' in states else ''}about {duration_text(plan.seconds)}"
    if plan.estimated:
        cores = os.cpu_count() or 1
        return (
            f"{text}. Times with ~ are estimates from operation counts for {cores} cores"
            f"{f' and {plan.gpu}' if plan.gpu else ''}, since no earlier build measured them"
        )
    if states == {"hit"}:
        return f"{text}, to copy cached steps into the artifact"
    return f"{text}, from earlier builds"


def _steps(plan: Plan) -> Table:
    table = _table()
    table.add_column("step", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("why", min_width=24)
    for step in plan.steps:
        table.add_row(
            step.name,
            Text(step.state, style=_STYLES[step.state]),
            _time(step),
            bytes_text(step.bytes) if step.bytes else "",
            Text(step.reason),
        )
    return table


def _time(step: PlannedStep) -> str:
    if step.state == "hit":
        return ""
    return f"{'~' if step.basis == 'estimate' else ''}{duration_text(step.seconds)}"


def _images(plan: Plan) -> Table:
    table = _table()
    memory = plan.memory
    columns = ("image", "grid", "tiles", "tokens", "KV cache", "images a batch")
    for column in columns if memory is not None else columns[:4]:
        table.add_column(column, justify="left" if column == "image" else "right", no_wrap=True)
    for image in plan.images:
        row = [
            f"{image.width}x{image.height}",
            f"{image.columns}x{image.rows}{' + thumbnail' if image.thumbnail else ''}",
            str(image.tiles),
            str(image.tokens),
        ]
        if memory is not None:
            row += [
                bytes_text(memory.cache_bytes_per_token * image.tokens),
                str(memory.batch_tokens // image.tokens or "none"),
            ]
        table.add_row(*row)
    return table


def _sizes(plan: Plan, memory: Memory) -> Table:
    found = plan.source_quantization
    as_found = "" if found is None else f", quantized already ({found}) and kept so"
    table = _table()
    table.add_column("memory and disk", no_wrap=True)
    table.add_column("", justify="right", no_wrap=True)
    for name, size in (
        ("vision weights", memory.vision_weights_bytes),
        (f"language weights{as_found}", memory.language_weights_bytes),
        (f"KV cache of a batch of {memory.batch_tokens:,} tokens", memory.cache_bytes),
        ("widest layer of that batch's prefill", memory.prefill_bytes),
        ("memory in all, without the engines' workspaces", memory.total_bytes),
        ("artifact on disk", plan.artifact_bytes),
        ("build cache grows by", plan.new_cache_bytes),
    ):
        table.add_row(name, bytes_text(size))
    for one in plan.devices:
        table.add_row(f"GPUs of {one.target} to run on", str(one))
    return table


def _table() -> Table:
    return Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
