"""Models and pictures of a given size with random content, without a checkpoint."""
