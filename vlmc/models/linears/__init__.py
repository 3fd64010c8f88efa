"""The linears of a decoder: dense, 4-bit and fp8, with their GPU kernels."""
