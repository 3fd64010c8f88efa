"""A plan as JSON values, whose keys are part of the contract with users."""

from __future__ import annotations

from typing import Any

from vlmc.builder.plan.plan import Plan


def plan_json(plan: Plan) -> dict[str, Any]:
    """Everything that the plan says; sizes in bytes, times in seconds."""
    memory = plan.memory
    return {
        "name": plan.name,
        "refusals": list(plan.refusals),
        "cannot_run_here": [
            {"step": obstacle.step, "reason": obstacle.reason} for obstacle in plan.obstacles
        ],
        "unknown": list(plan.unknown),
        "gpu": plan.gpu,
        "compared_with": plan.compared_with,
        "steps": [
            {
                "name": step.name,
                "state": step.state,
                "reason": step.reason,
                "key": step.key,
                "bytes": step.bytes,
                "seconds": round(step.seconds, 1),
                "basis": step.basis,
                "peak_memory_bytes": step.peak_memory_bytes,
            }
            for step in plan.steps
        ],
        "images": [
            {
                "width": image.width,
                "height": image.height,
                "grid": [image.columns, image.rows],
                "thumbnail": image.thumbnail,
                "tiles": image.tiles,
                "tokens": image.tokens,
                "cache_bytes": image.cache_bytes,
            }
            for image in plan.images
        ],
        "source_quantization": plan.source_quantization,
        "memory_bytes": None if memory is None else memory.total_bytes,
        "memory": None
        if memory is None
        else {
            "vision_weights_bytes": memory.vision_weights_bytes,
            "language_weights_bytes": memory.language_weights_bytes,
            "cache_bytes_per_token": memory.cache_bytes_per_token,
            "cache_bytes": memory.cache_bytes,
            "prefill_bytes": memory.prefill_bytes,
            "batch_tokens": memory.batch_tokens,
        },
        "devices": [
            {
                "target": one.target,
                "card": one.card,
                "card_memory_bytes": one.memory_bytes,
                "one_device_bytes": one.one_device_bytes,
                "devices": one.devices,
                "fullest_bytes": one.fullest_bytes,
            }
            for one in plan.devices
        ],
        "disk_bytes": None if memory is None else plan.artifact_bytes,
        "disk": None
        if memory is None
        else {
            "artifact_bytes": plan.artifact_bytes,
            "new_cache_bytes": plan.new_cache_bytes,
            "shortages": [
                {
                    "folders": [str(folder) for folder in shortage.folders],
                    "needed_bytes": shortage.needed_bytes,
                    "free_bytes": shortage.free_bytes,
                }
                for shortage in plan.shortages
            ],
        },
        "seconds": None if memory is None else round(plan.seconds, 1),
        "seconds_estimated": plan.estimated,
    }
