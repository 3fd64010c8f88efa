"""The quickstart model: a small trained checkpoint, its images and the scripts that made them."""
