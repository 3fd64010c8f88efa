"""Signs that a source was misread, which a comparison with it would not show."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from torch import Tensor, nn

from vlmc.errors import AccuracyError
from vlmc.text.prompt import IMAGE_END, IMAGE_START, IMAGE_TOKEN
from vlmc.text.tokenizer import Tokenizer
from vlmc.text.vocabulary_checks import is_single

# Standard deviation of embeddings and head. Models of the family have 0.01 to 0.2, and tied or
# random ones up to 1; values whose bytes or scales are read wrongly are many orders away.
_STD = (1e-4, 10.0)
# Mean magnitude of a norm's weights: trained ones have 0.01 to about 10.
_NORM = (1e-4, 1e3)
_SAMPLED = 1 << 20


def check_weights(name: str, model: nn.Module) -> None:
    """Check a model's weights for values that no training leaves; `name` is what messages call it.

    Raises:
        AccuracyError: a matrix is all zeros, or an embedding, head or norm has values of an
            impossible size; names the tensor.
    """
    for path, parameter in model.named_parameters():
        where = f"{name}.{path}"
        # Whether all of a few values are zero is as telling, and takes no time.
        if parameter.ndim >= 2 and not bool(_sample(parameter).any()):
            raise _misread(where, "all its values are zero")
        if path.endswith(("embed_tokens.weight", "lm_head.weight")):
            _check_size(where, "standard deviation", _sample(parameter).std(), _STD)
        elif "norm" in path and path.endswith("weight") and parameter.ndim == 1:
            _check_size(where, "mean magnitude", _sample(parameter).abs().mean(), _NORM)


def check_tokenizer(tokenizer: Tokenizer, prompts: Iterable[str]) -> None:
    """Check that prompts survive the way to token ids and back, and that marks are single tokens.

    Raises:
        AccuracyError: a prompt or a mark does not; names it.
    """
    for mark in (IMAGE_START, IMAGE_END, IMAGE_TOKEN):
        if not is_single(tokenizer, mark):
            raise AccuracyError(
                f"the source's tokenizer splits {mark!r}, which the model was trained with as one "
                "token. Its files are read wrongly or incomplete: check added_tokens.json and "
                "tokenizer_config.json of the checkpoint."
            )
    for prompt in dict.fromkeys(prompts):
        ids = tokenizer.encode(prompt)
        back = tokenizer.decode(ids, skip_special_tokens=True)
        # Of a prompt that holds special tokens, with spaces that some tokenizers put around them.
        whole = tokenizer.decode(ids[ids[:1] == [tokenizer.bos_id] :], skip_special_tokens=False)
        if _plain(back) != _plain(prompt) and _solid(whole) != _solid(prompt):
            raise AccuracyError(
                f"the source's tokenizer makes {back!r} of the prompt {prompt!r}, so the model is "
                "not given what was asked. Its files are read wrongly or belong to another model: "
                "check the tokenizer files of the checkpoint."
            )


def _sample(parameter: Tensor) -> Tensor:
    """Some values of all rows, in fp32."""
    values = parameter.detach().flatten()
    return values[:: max(1, len(values) // _SAMPLED)].float()


def _check_size(where: str, what: str, value: Tensor, limits: tuple[float, float]) -> None:
    low, high = limits
    if not low <= float(value) <= high:
        raise _misread(where, f"its {what} is {float(value):.3g}, outside {low:g} to {high:g}")


def _misread(where: str, why: str) -> AccuracyError:
    return AccuracyError(
        f"the source model cannot be compared with: {where} is not what training leaves, since "
        f"{why}. The checkpoint is damaged, or vlmc misreads it: compare this tensor with the "
        "original implementation's."
    )


def _plain(text: str) -> str:
    """The text as tokenizers may change it: composed characters, outer spaces."""
    return unicodedata.normalize("NFC", text).strip()


def _solid(text: str) -> str:
    """The text without any spaces."""
    return "".join(_plain(text).split())
