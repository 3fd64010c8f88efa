"""Which sequences run in the next step, and what becomes of its results."""
