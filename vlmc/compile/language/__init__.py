"""Write the language model in the Hugging Face layout: 16-bit, 4-bit or fp8."""
