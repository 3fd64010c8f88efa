"""Graphs of every precision agree with fp32, and a broken one diverges where it is broken."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.models.vision.fused import tower_of
from tests.verify.layers.graphs import Graphs, Values
from vlmc.artifact.vision_files import GRAPH
from vlmc.compile.vision import write_fp32_graph
from vlmc.errors import IntegrityError
from vlmc.machine.support import Precision
from vlmc.verify.layers import compare
from vlmc.verify.layers.batches import split_batches
from vlmc.verify.layers.marked_graph import GraphCopy
from vlmc.verify.layers.match import match_tensors
from vlmc.verify.layers.result import TensorError, worst

# One process makes the graphs that these tests share.
pytestmark = pytest.mark.xdist_group("verify.layers")
LAYER = "vision_model.encoder.layers"
QKV, FC1 = f"{LAYER}.1.attn.qkv", f"{LAYER}.1.mlp.fc1"
# What every graph of the miniature's two blocks has, at least.
NAMES = {
    "patch_weight",
    "tower/Conv",
    f"{LAYER}.0.norm1/LayerNormalization",
    f"{QKV}.weight",
    f"{QKV}/MatMul",
    f"{QKV}/Add",
    f"{LAYER}.1.attn/Softmax",
    f"{LAYER}.1/Add",
    f"{LAYER}.1/Add.2",
    f"{LAYER}.1.mlp/Gelu",
    "mlp1.3/Add",
}


def first(errors: list[TensorError]) -> TensorError:
    return next(error for error in errors if error.diverges)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8", "fp8"])
def test_every_tensor_is_matched_and_agrees(precision: Precision, graphs: Graphs) -> None:
    errors = graphs.compare(precision)
    assert [error for error in errors if error.diverges] == []
    assert {error.name for error in errors} >= NAMES
    assert len(errors) == 79
    # Two graphs, not one with itself: parameters are rounded, and results differ.
    rounded = {error.name: error.relative_error for error in errors}
    assert rounded[f"{FC1[:-1]}2.weight"] > {"fp16": 1e-4, "bf16": 1e-3}.get(precision, 3e-3)
    assert rounded["mlp1.3/Add"] > 1e-5
    listed = worst(errors)
    assert len(listed) == 10
    assert all(error.tile is not None for error in listed), "no sound parameter"
    shares = [error.relative_error / error.limit for error in listed]
    assert shares == sorted(shares, reverse=True)


@pytest.mark.slow  # one more trace
def test_towers_with_other_norms_are_matched(
    artifacts: Callable[[str], Path], miniatures: Callable[[str], Path], tmp_path: Path
) -> None:
    fp32, name = tmp_path / "fp32.onnx", "llama-yi-6b"
    write_fp32_graph(tower_of(miniatures(name)), fp32, None)
    typed = artifacts(name) / "vision" / GRAPH
    match = match_tensors(onnx.load(fp32), onnx.load(typed))
    assert match.unmatched == ()
    names = {tensor.name for tensor in match.tensors}
    assert {f"{LAYER}.1.attn.q_norm.weight", f"{LAYER}.1.attn.k_norm/Mul.2"} <= names


def next_code(values: Values) -> Values:
    """Zero points off by one."""
    return values + 1


def doubled(values: Values) -> Values:
    return values * 2


def shrunk(values: Values) -> Values:
    return values / 8


def with_nan(values: Values) -> Values:
    changed = values.copy()
    changed.flat[7] = math.nan
    return changed


@pytest.mark.parametrize(
    ("precision", "initializer", "edit", "tensor"),
    [
        ("int8", f"{FC1}.weight_zero_point", next_code, f"{FC1}.weight"),
        ("int8", f"{FC1}.weight_scale", doubled, f"{FC1}.weight"),
        ("int8", f"{FC1}.input_scale", shrunk, f"{FC1}/MatMul"),
        ("fp16", f"{QKV}.bias", doubled, f"{QKV}.bias"),
        ("fp16", f"{QKV}.weight", with_nan, f"{QKV}.weight"),
    ],
)
def test_a_broken_layer_diverges_first(
    precision: Precision,
    initializer: str,
    edit: Callable[[Values], Values],
    tensor: str,
    graphs: Graphs,
) -> None:
    errors = graphs.compare(precision, graphs.broken(precision, initializer, edit))
    found = first(errors)
    assert (found.name, found.layer) == (tensor, initializer.rpartition(".")[0])
    assert found.tile == (0 if "/" in tensor else None)
    assert found in worst(errors)


def test_batches_do_not_change_what_is_found(
    graphs: Graphs, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = graphs.compare("fp16")
    monkeypatch.setattr(compare, "_BATCH_BYTES", 32 << 20)
    parts = graphs.compare("fp16")
    assert [part.name for part in parts] == [error.name for error in whole]
    for part, error in zip(parts, whole, strict=True):
        assert part.relative_error == pytest.approx(error.relative_error, rel=0.5, abs=1e-4)


def test_batches_are_bounded_and_run_every_node_once(graphs: Graphs, tmp_path: Path) -> None:
    model = onnx.load(graphs.fp32)
    match = match_tensors(model, model)
    computed = [tensor for tensor in match.tensors if not tensor.is_parameter]
    copy, budget = GraphCopy(model, tmp_path / "copy"), 24 << 20
    batches = split_batches(computed, copy, budget)
    assert [tensor for batch in batches for tensor in batch] == computed
    assert max(sum(tensor.bytes for tensor in batch) for batch in batches) <= budget
    assert len(batches) > 1
    known: set[str] = set()
    products = 0
    for batch in batches:
        names = [tensor.fp32 for tensor in batch]
        reads = copy.reads(names, known) & known
        # The scores of two heads are far larger than all else, and are not carried on.
        assert sum(t.bytes for t in computed if t.fp32 in reads) < 1 << 20
        known.update(names)
        marked = onnx.load(copy.mark({f"out/{n}": n for n in names}, dict.fromkeys(reads, (1,))))
        products += sum(node.op_type == "MatMul" for node in marked.graph.node)
    assert products == sum(node.op_type == "MatMul" for node in model.graph.node)


def test_graphs_of_different_towers_are_refused(graphs: Graphs) -> None:
    fp32 = onnx.load(graphs.fp32)
    other = onnx.ModelProto()
    other.CopyFrom(fp32)
    for value in other.graph.initializer:
        value.name = f"other.{value.name}"
    for node in other.graph.node:
        renamed = [f"other.{name}" if "." in name else name for name in node.input]
        node.input[:] = renamed
    with pytest.raises(IntegrityError, match="not of the same tower"):
        match_tensors(fp32, other)


def test_limits_are_those_of_rounding(graphs: Graphs) -> None:
    """Random roundings stay well below, and one step too many is above."""
    limits = {error.name: error for error in graphs.compare("int8")}
    weight = limits[f"{FC1}.weight"]
    assert 0.3 * weight.limit < weight.relative_error < 0.7 * weight.limit
    bias = limits[f"{FC1}.bias"]  # in fp16
    assert bias.limit == pytest.approx(2**-11 * 1.05)
    assert np.isclose(limits[f"{FC1}/MatMul"].limit, 2 * math.sqrt(2 * 0.01))
