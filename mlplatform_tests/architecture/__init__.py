"""Tests of the structure: which way imports run, and what a module may import when it is imported."""
