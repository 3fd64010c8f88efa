"""The decoder, its KV cache, and the plain reference loop."""
