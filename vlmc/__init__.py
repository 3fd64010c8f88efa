"""A compiler and thin runtime for InternVL2 vision-language models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlmc.version import __version__

if TYPE_CHECKING:
    from vlmc.artifact.integrity import Artifact, open_artifact
    from vlmc.runtime.batch_answers import BatchAnswers
    from vlmc.runtime.load import load
    from vlmc.runtime.model import Model
    from vlmc.runtime.requests.answer import Answer
    from vlmc.runtime.requests.scores import Scores
    from vlmc.runtime.requests.statistics import Statistics

__all__ = [
    "Answer",
    "Artifact",
    "BatchAnswers",
    "Model",
    "Scores",
    "Statistics",
    "__version__",
    "load",
    "open_artifact",
]

_HOMES = {
    "load": "vlmc.runtime.load",
    "Model": "vlmc.runtime.model",
    "Answer": "vlmc.runtime.requests.answer",
    "Scores": "vlmc.runtime.requests.scores",
    "Statistics": "vlmc.runtime.requests.statistics",
    "Artifact": "vlmc.artifact.integrity",
    "open_artifact": "vlmc.artifact.integrity",
    "BatchAnswers": "vlmc.runtime.batch_answers",
}


def __getattr__(name: str) -> Any:
    """Import the runtime, and torch with it, only on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
