"""Pages of the KV cache: who holds them, and which hold a prompt that can be used again."""
