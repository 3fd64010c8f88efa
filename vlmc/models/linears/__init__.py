"""Linears of the decoder: dense, 4-bit and fp8, with their GPU kernels."""
