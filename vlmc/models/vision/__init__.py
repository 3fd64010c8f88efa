"""The vision tower: the reference module, the fused tower for GPUs, and their files."""
