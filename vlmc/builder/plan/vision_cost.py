"""What the steps of the vision wing write and compute, before anyone starts them."""

from __future__ import annotations

from vlmc.artifact.vision_files import GOLDEN_TILES
from vlmc.builder.plan.cost import DTYPE_BYTES, Counts, StepCost, golden_bytes
from vlmc.checkpoint.config import ModelConfig
from vlmc.image.tiles import choose_grid
from vlmc.models.flops import tower_flops
from vlmc.recipe.resolve import Resolved

# Sizes measured on built artifacts: what a safetensors header, a graph, ranges.json and the report
# say of each tensor, block or linear, and what Q/DQ nodes say of a linear.
_HEADER_BYTES_PER_TENSOR = 110
_GRAPH_BYTES_PER_BLOCK = 5_000
_NODES_BYTES_PER_LINEAR = 1_500
_RANGES_BYTES_PER_LINEAR = 900
_USUAL_SIZE = (640, 480)
# As vlmc.compile.calibration.ranges and calibration_tiles, which a plan cannot import.
_TILES_AN_IMAGE, _TILES_FOR_FP16, _CHECKED, _RANKED = 2, 16, 24, 4
# How often the checked tiles are run in search of the layers that stay in 16 bits, as a rule.
_SEARCH_RUNS = 2


def vision_cost(resolved: Resolved, counts: Counts, config: ModelConfig) -> dict[str, StepCost]:
    """StepCost of the steps that read the checkpoint, by their names, for images of 640 · 480."""
    recipe = resolved.recipe
    tile = tower_flops(config.vision, config.vision_layers, config.hidden_size)
    linears = 4 * config.vision_layers + 2
    wide = DTYPE_BYTES[resolved.graph_dtype]
    graph_bytes = counts.tower_parameters * wide + _GRAPH_BYTES_PER_BLOCK * config.vision_layers
    tiles = GOLDEN_TILES
    if "vision" in recipe.calibrated_wings:
        an_image = min(choose_grid(*_USUAL_SIZE, resolved.tiles).tiles, _TILES_AN_IMAGE)
        tiles += recipe.calibration.samples * an_image
    if recipe.vision.precision in ("int8", "fp8"):
        graph_bytes -= linear_weights(config) * (wide - 1)
        graph_bytes += _NODES_BYTES_PER_LINEAR * linears
        checked = min(tiles, GOLDEN_TILES + _CHECKED)
        # A layer alone is run from its block on, half of the tower in the mean.
        tiles += _RANKED * linears // 2 + _SEARCH_RUNS * checked
    else:
        tiles = min(tiles, GOLDEN_TILES + _TILES_FOR_FP16)
    return {
        "vision.weights": StepCost(
            counts.tower_stored_bytes + _HEADER_BYTES_PER_TENSOR * counts.tower_tensors
        ),
        "vision.golden": StepCost(golden_bytes(config), GOLDEN_TILES * tile),
        "vision.ranges": StepCost(_RANGES_BYTES_PER_LINEAR * linears, tiles * tile),
        "vision.graph": StepCost(
            graph_bytes,
            # The exporter runs the tower on two tiles while it traces.
            operations=2 * tile,
            exported_blocks=config.vision_layers,
        ),
    }


def linear_weights(config: ModelConfig) -> int:
    """Weights of the linears that int8 and fp8 put on their grids."""
    hidden, inner = config.vision.hidden_size, config.vision.intermediate_size
    out = config.language.hidden_size
    blocks = config.vision_layers * (4 * hidden**2 + 2 * hidden * inner)
    return blocks + 4 * hidden * out + out**2
