"""Random-weight miniatures of every InternVL2 family in the original checkpoint layout."""

from tests.miniature.checkpoint import write_checkpoint
from tests.miniature.family import MINIATURES, write_miniature

__all__ = ["MINIATURES", "write_checkpoint", "write_miniature"]
