"""Imports the original implementation from a folder, without the packages it never calls here."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import torch


def import_original(repository: Path) -> types.SimpleNamespace:
    """The original's classes and functions out of a checkout of OpenGVLab/InternVL.

    `repository` holds `internvl_chat/`. Training-only imports (peft, decord, imageio, cv2) are
    replaced by empty modules, and torchvision's two compiled operators are declared, so that
    neither has to be installed for its GPU build.
    """
    library: Any = torch.library
    operators = library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import timm  # noqa: F401
    import torchvision  # noqa: F401
    import transformers

    for name in ("peft", "decord", "imageio", "cv2"):
        stand_in: Any = types.ModuleType(name)
        stand_in.LoraConfig = stand_in.get_peft_model = stand_in.VideoReader = None
        sys.modules.setdefault(name, stand_in)
    sys.path.insert(0, str(repository / "internvl_chat"))
    from internvl.model.internlm2.tokenization_internlm2 import InternLM2Tokenizer
    from internvl.model.internvl_chat.configuration_internvl_chat import InternVLChatConfig
    from internvl.model.internvl_chat.modeling_internvl_chat import InternVLChatModel
    from internvl.train.dataset import build_transform, dynamic_preprocess

    return types.SimpleNamespace(
        operators=operators,  # the declarations live as long as this object
        config=InternVLChatConfig,
        model=InternVLChatModel,
        dynamic_preprocess=dynamic_preprocess,
        transform=build_transform(is_train=False, input_size=448),
        tokenizers={
            "internlm2": InternLM2Tokenizer,
            "qwen2": transformers.Qwen2Tokenizer,
            "phi3": transformers.LlamaTokenizer,
            "yi": transformers.LlamaTokenizer,
            "llama3": transformers.PreTrainedTokenizerFast,
        },
    )
