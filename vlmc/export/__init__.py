"""Weights of an artifact in the layouts of other engines."""
