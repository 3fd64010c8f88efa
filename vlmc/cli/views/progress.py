"""The view of progress for a verb: live on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from vlmc.cli.views.plain_view import PlainView
from vlmc.cli.views.terminal_view import TerminalView
from vlmc.progress.channel import receiving


@contextmanager
def show_progress() -> Iterator[None]:
    """Show the events that are reported within, on stderr."""
    console = Console(stderr=True)
    if not console.is_terminal:
        with receiving(PlainView().receive):
            yield
        return
    with TerminalView(console) as view, receiving(view.receive):
        yield
