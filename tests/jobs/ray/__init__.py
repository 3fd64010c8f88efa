"""Tests of the job on a Ray cluster."""
