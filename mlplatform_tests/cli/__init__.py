"""Tests of the command `mlplatform`."""
