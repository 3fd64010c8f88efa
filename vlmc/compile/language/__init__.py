"""The language model's weights in Hugging Face's layout: plain, 4-bit, fp8."""
