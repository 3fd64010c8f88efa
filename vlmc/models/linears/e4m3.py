"""The fp8 format of weights and activations, E4M3."""

E4M3_MAX = 448.0
