"""4-bit weights for the language model, through llmcompressor in a process of its own.

`job` writes a folder, `worker` runs on it as a process, and `result` reads what it left there:
nothing but files and lines of progress pass between them.
"""
