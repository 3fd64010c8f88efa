"""Engines of the vision tower: uint8 tiles in, features out."""
