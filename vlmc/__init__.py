"""A compiler and thin runtime for InternVL2 vision-language models."""

__version__ = "0.1.0"
