"""The examples in the docstrings of the Python interface run."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vlmc
from vlmc import Model

# Found by name, since the package imports them when they are asked for.
PUBLIC = {name: getattr(vlmc, name) for name in vlmc.__all__ if name != "__version__"}
PARSER = doctest.DocTestParser()


def examples() -> Iterator[doctest.DocTest]:
    for name, value in PUBLIC.items():
        documented = {name: value}
        if inspect.isclass(value):
            documented |= {f"{name}.{part}": found for part, found in vars(value).items()}
        for full, found in documented.items():
            text = found.__doc__ if not full.rpartition(".")[2].startswith("_") else None
            if text and ">>>" in text:
                yield PARSER.get_doctest(text, {}, full, None, 0)


EXAMPLES = {test.name: test for test in examples()}


@pytest.fixture
def workplace(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder that the examples speak of."""
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "quickstart").symlink_to(artifact)
    for number, name in enumerate(("room.jpg", "a.jpg", "b.jpg")):
        pixels = np.full((40, 60, 3), 60 * number, np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs(name: str, model: Model) -> None:
    test = EXAMPLES[name]
    test.globs = {"model": model}
    runner = doctest.DocTestRunner(optionflags=doctest.FAIL_FAST)
    said: list[str] = []
    runner.run(test, out=said.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(said)


def test_every_public_method_of_a_model_has_one() -> None:
    methods = {
        f"Model.{name}"
        for name, value in vars(Model).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }
    assert methods | {"load", "open_artifact", "Answer", "Scores"} <= EXAMPLES.keys()
