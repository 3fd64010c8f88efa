"""Training code of the quickstart model: drawn scenes, tokenizer, training, evaluation."""
