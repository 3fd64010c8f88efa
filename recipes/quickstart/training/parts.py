"""What a drawn scene consists of."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Thing:
    """One visible thing that can be asked about.

    `box` is x0, y0, x1, y1 in pixels of the picture. `in_order` is None for the label plate, which
    alone has a `text`; `colour` is None where the kind has no colour worth asking for.
    """

    kind: str
    colour: str | None
    box: tuple[float, float, float, float]
    in_order: bool | None
    text: str | None


@dataclass(frozen=True, slots=True)
class Question:
    """One question with its true answer. `positive`: a presence question answered yes."""

    kind: str
    language: str
    prompt: str
    answer: str
    positive: bool


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture as JPEG, what is in it, and questions about it."""

    jpeg: bytes
    width: int
    height: int
    things: tuple[Thing, ...]
    questions: tuple[Question, ...]
    large: bool
