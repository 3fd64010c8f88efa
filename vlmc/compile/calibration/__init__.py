"""Calibrate the tower's ranges for fp16, int8 and fp8 on images."""
