"""Wrong types and a forked child get one sentence, and answers are short in print."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from vlmc import Model
from vlmc.errors import UsageError

Pictures = list[npt.NDArray[np.uint8]]
CALLS: dict[str, Callable[[Any], object]] = {
    "max_new_tokens is 2.5; it must be a whole number": lambda model: model.generate(
        [(None, "Hello")], max_new_tokens=2.5
    ),
    "max_new_tokens is True; it must be a whole number": lambda model: model.submit(
        (None, "Hello"), max_new_tokens=True
    ),
    "temperature is '1'; it must be a number": lambda model: model.stream([], temperature="1"),
    "seed is None; it must be a whole number": lambda model: model.try_stream([], seed=None),
    "choices must be different texts, at least one; got [1, 2]": lambda model: model.score(
        [], choices=[1, 2]
    ),
    "requests are an iterable of (image, prompt), got NoneType": lambda model: list(
        model.generate(None)
    ),
    "encode takes a list of images; write encode([image])": lambda model: model.encode("a.jpg"),
}


@pytest.mark.parametrize("said", CALLS)
def test_wrong_types_get_a_sentence(said: str, model: Model) -> None:
    with pytest.raises(UsageError) as caught:
        CALLS[said](model)
    assert str(caught.value) == said


def test_an_answer_is_short_in_print(model: Model, pictures: Pictures) -> None:
    (answer,) = model.generate([(pictures[0], "What is this? " * 50)], max_new_tokens=64)
    assert repr(answer).startswith("Answer('") and len(repr(answer)) < 160


def test_a_forked_child_is_refused(model: Model, pictures: Pictures) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            model.generate([(pictures[0], "What?")])
        except UsageError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as said:
        assert "loaded before the process was forked" in said.read()
    os.waitpid(child, 0)
