"""Tests of `mlplatform.promotion`."""
