"""Tests of vlmc."""
