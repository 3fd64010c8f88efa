"""The cache of finished steps."""
