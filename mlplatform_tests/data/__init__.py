"""Tests of `mlplatform.data`."""
