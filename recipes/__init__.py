"""Worked recipes; importable from the repository root for the scripts and tests."""
