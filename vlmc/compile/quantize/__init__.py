"""4-bit weights for the language model, through llmcompressor in a process of its own.

`job` writes a folder, `python -m vlmc.compile.quantize.worker` works on it, and `result`
reads what it left there: nothing but files and lines of progress pass between them.
"""
