"""Tests of mlplatform.features."""
