"""Pages of the KV cache, and keys of prompts that can be reused."""
