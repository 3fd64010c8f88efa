"""Errors that users see. Each says what happened, why, and what to do next.

The exit code of the command line follows from the class: 2 recipe or usage, 3 accuracy,
4 integrity, 5 hardware or engine mismatch, 1 anything else.
"""

from __future__ import annotations


class VlmcError(Exception):
    """Base of every error that vlmc raises on purpose."""

    exit_code = 1


class RecipeError(VlmcError):
    """A recipe that cannot be built."""

    exit_code = 2


class UsageError(VlmcError):
    """A command or call with arguments that cannot be used."""

    exit_code = 2


class CheckpointError(VlmcError):
    """A source checkpoint that is damaged, incomplete or not an InternVL2 model."""


class TokenizerError(CheckpointError):
    """Tokenizer files that are missing, damaged or disagree with the model."""


class ImageError(VlmcError):
    """An image that cannot be decoded, or is too large to be decoded safely."""


class PromptError(VlmcError):
    """A prompt that does not fit its images or the model's context."""


class NotFiniteError(VlmcError):
    """Scores that are NaN or infinite, from which no answer follows."""


class BuildError(VlmcError):
    """A step of a build that failed."""


class AccuracyError(VlmcError):
    """Answers that fell below the recipe's thresholds."""

    exit_code = 3


class IntegrityError(VlmcError):
    """An artifact whose files are not what its manifest says."""

    exit_code = 4


class HardwareError(VlmcError):
    """An artifact or engine that this machine cannot run."""

    exit_code = 5


class ModelLostError(HardwareError):
    """A loaded model that can answer no request any more."""
