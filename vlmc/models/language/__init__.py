"""The decoder, its KV cache, and a reference loop for generation and scoring."""
