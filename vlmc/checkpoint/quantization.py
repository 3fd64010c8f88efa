"""What a config.json says about quantized weights: which linears, which layout, which groups.

Read from `quantization_config` at the top, under `llm_config` or under `text_config`, as its
writers place it (INTERNVL2 reference, 9).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vlmc.errors import CheckpointError

PER_WORD = 8
"""4-bit values of an int32."""
Layout = Literal["w4a16", "fp8", "awq", "gptq", "gptq_v2"]

_PLACES = ("", "llm_config", "text_config")
_IN_LAYERS = r"re:.*layers\."
_REGEX = "re:"


@dataclass(frozen=True, slots=True)
class Quantization:
    """The layout of quantized linears, and which linears it covers.

    `w4a16` and `fp8` are compressed-tensors' `pack-quantized` and `float-quantized`, which an
    artifact holds; `awq`, `gptq` and `gptq_v2` are those of source checkpoints alone.
    """

    layout: Layout
    group_size: int | None  # inputs that share a scale; None is all of them
    symmetric: bool  # no zero points
    targets: tuple[str, ...]
    ignore: tuple[str, ...] = ()
    act_order: bool = False  # GPTQ's desc_act: only `g_idx` has the group of each input

    @property
    def scheme(self) -> Literal["w4a16", "fp8"]:
        """What an artifact calls it: all layouts of 4-bit weights are one there."""
        return "fp8" if self.layout == "fp8" else "w4a16"

    def covers(self, linear: str) -> bool:
        """Whether the linear of this whole name, `model.layers.0.mlp.up_proj`, is quantized."""
        return _matches(self.targets, linear) and not _matches(self.ignore, linear)


def find_quantization(values: Mapping[str, Any], path: Path) -> Quantization | None:
    """What the parsed `config.json` at `path` says; None where it says nothing.

    Raises:
        CheckpointError: vlmc does not read the layout; the message names the key.
    """
    for place in _PLACES:
        section = values.get(place) if place else values
        if not isinstance(section, Mapping) or section.get("quantization_config") is None:
            continue
        key = f"{place}.quantization_config" if place else "quantization_config"
        found = section["quantization_config"]
        if not isinstance(found, Mapping):
            raise CheckpointError(f"{path}: {key} is {found!r}, expected an object")
        return _read(_Settings(found, path, key))
    return None


class _Settings:
    """One object of the settings, with errors that name file and key."""

    def __init__(self, values: Mapping[str, Any], path: Path, key: str) -> None:
        self.values, self.path, self.key = values, path, key

    def fail(self, name: str, expected: str) -> CheckpointError:
        return CheckpointError(
            f"{self.path}: {self.key}.{name} is {self.values.get(name)!r}; this version reads "
            f"{expected}. Start from the original 16-bit weights, or from such a checkpoint."
        )

    def one_of(self, name: str, allowed: Mapping[Any, Any] | tuple[Any, ...], text: str) -> Any:
        """The value, among those allowed (a mapping also translates it)."""
        found = self.values.get(name)
        # The types must be equal too: True == 1.
        fitting = [item for item in allowed if item == found and type(item) is type(found)]
        if not fitting:
            raise self.fail(name, text)
        return allowed[found] if isinstance(allowed, Mapping) else found

    def below(self, name: str) -> _Settings:
        found = self.values.get(name)
        if not isinstance(found, Mapping):
            raise self.fail(name, "an object there")
        return _Settings(found, self.path, f"{self.key}.{name}")

    def names(self, name: str) -> tuple[str, ...]:
        found = self.values.get(name) or []
        if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
            raise self.fail(name, "a list of names there")
        self.check_patterns(name, found)
        return tuple(found)

    def check_patterns(self, name: str, found: Iterable[str]) -> None:
        for item in found:
            if item.startswith(_REGEX):
                try:
                    re.compile(item.removeprefix(_REGEX))
                except re.error as error:
                    raise self.fail(name, f"valid patterns ({error})") from error

    def group_size(self, *names: str) -> int | None:
        name = next((name for name in names if name in self.values), names[0])
        found = self.values.get(name)
        if found == -1:
            return None
        if isinstance(found, bool) or not isinstance(found, int) or found < 8 or found % 8:
            raise self.fail(name, "a multiple of 8, or -1 for one group")
        return found


def _read(settings: _Settings) -> Quantization:
    method = settings.one_of(
        "quant_method",
        {"compressed-tensors": _compressed, "awq": _awq, "gptq": _gptq},
        "compressed-tensors, awq and gptq",
    )
    found: Quantization = method(settings)
    return found


def _compressed(settings: _Settings) -> Quantization:
    settings.one_of("quantization_status", ("compressed",), "compressed weights alone")
    for name in ("kv_cache_scheme", "transform_config"):
        if settings.values.get(name):
            raise settings.fail(name, "no such scheme")
    sparsity = settings.values.get("sparsity_config")
    if sparsity and not (isinstance(sparsity, Mapping) and sparsity.get("format") == "dense"):
        raise settings.fail("sparsity_config", "dense weights alone")
    groups = settings.below("config_groups")
    if len(groups.values) != 1:
        raise settings.fail("config_groups", "exactly one group")
    group = groups.below(next(iter(groups.values)))
    holder = group if group.values.get("format") else settings
    layout = holder.one_of(
        "format",
        {"pack-quantized": "w4a16", "float-quantized": "fp8"},
        "pack-quantized and float-quantized",
    )
    targets, ignore = group.names("targets"), settings.names("ignore")
    weights, activations = group.below("weights"), group.values.get("input_activations")
    if group.values.get("output_activations"):
        raise group.fail("output_activations", "outputs that are not quantized")
    if layout == "fp8":
        for part in (weights, group.below("input_activations")):
            part.one_of("num_bits", (8,), "8 bits")
            part.one_of("type", ("float",), "float")
        weights.one_of("strategy", ("channel",), "a scale for each output (channel)")
        inputs = group.below("input_activations")
        inputs.one_of("strategy", ("token",), "a scale for each token")
        inputs.one_of("dynamic", (True,), "scales made from each token as it comes")
        return Quantization("fp8", None, True, targets, ignore)
    if activations is not None:
        raise group.fail("input_activations", "activations in 16 bits (null)")
    weights.one_of("num_bits", (4,), "4 bits")
    weights.one_of("type", ("int",), "int")
    if weights.values.get("actorder") not in (None, False, "static", "weight"):
        raise weights.fail("actorder", "groups of inputs that follow each other (null, static)")
    strategy = weights.one_of("strategy", ("group", "channel"), "group and channel")
    symmetric = weights.one_of("symmetric", (True, False), "true and false")
    size = weights.group_size("group_size") if strategy == "group" else None
    return Quantization("w4a16", size, symmetric, targets, ignore)


def _awq(settings: _Settings) -> Quantization:
    version = settings.values.get("version")
    if not isinstance(version, str) or version.lower() != "gemm":
        raise settings.fail("version", "AWQ's gemm layout")
    settings.one_of("w_bit" if "w_bit" in settings.values else "bits", (4,), "4 bits")
    settings.one_of("zero_point", (True,), "AWQ with zero points")
    # Its readers leave a module out where the text occurs anywhere in the name.
    ignore = tuple(
        f"{_REGEX}.*{re.escape(name)}" for name in settings.names("modules_to_not_convert")
    )
    size = settings.group_size("group_size", "q_group_size")
    return Quantization("awq", size, False, (_IN_LAYERS,), ignore)


def _gptq(settings: _Settings) -> Quantization:
    settings.one_of("bits", (4,), "4 bits")
    if settings.values.get("is_marlin_format"):
        raise settings.fail("is_marlin_format", "GPTQ's own layout")
    if settings.values.get("lm_head"):
        raise settings.fail("lm_head", "a head in 16 bits")
    layout: Layout = "gptq"
    if settings.values.get("checkpoint_format") is not None:
        layout = settings.one_of(
            "checkpoint_format", {"gptq": "gptq", "gptq_v2": "gptq_v2"}, "gptq and gptq_v2"
        )
    symmetric = settings.one_of("sym", (True, False), "true and false")
    size, act_order = settings.group_size("group_size"), bool(settings.values.get("desc_act"))
    ignore = _left_out(settings)
    return Quantization(layout, size, symmetric, (_IN_LAYERS,), ignore, act_order)


def _left_out(settings: _Settings) -> tuple[str, ...]:
    """Patterns of GPTQ's `dynamic` that leave linears in 16 bits, which begin with `-:`."""
    found = settings.values.get("dynamic") or {}
    if not isinstance(found, Mapping) or not all(key.startswith("-:") for key in found):
        raise settings.fail("dynamic", "one setting for all layers, but for those left out (-:)")
    patterns = tuple(_REGEX + key.removeprefix("-:") for key in found)
    settings.check_patterns("dynamic", patterns)
    return patterns


def _matches(patterns: tuple[str, ...], linear: str) -> bool:
    """Names as compressed-tensors matches them: whole, as a pattern from the start, or by class."""
    return any(
        re.match(pattern.removeprefix(_REGEX), linear) is not None
        if pattern.startswith(_REGEX)
        else pattern in (linear, "Linear")
        for pattern in patterns
    )
