"""The quickstart model: a small trained checkpoint, its images and the table of its answers."""
