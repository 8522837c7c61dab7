"""Tests of `mlplatform.candidates`."""
