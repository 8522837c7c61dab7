"""Tests of `mlplatform.config`."""
