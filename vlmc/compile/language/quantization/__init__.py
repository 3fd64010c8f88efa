"""Quantize the language model to 4 bits with llmcompressor, in a separate process.

`job` writes the input folder, `worker` is the process, and `result` reads its output. They exchange
only files and progress lines.
"""
