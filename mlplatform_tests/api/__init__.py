"""Tests of what people do from Python."""
