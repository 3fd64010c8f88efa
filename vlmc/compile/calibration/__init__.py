"""Measure on images what 8 bits and fp16 can represent of the tower."""
