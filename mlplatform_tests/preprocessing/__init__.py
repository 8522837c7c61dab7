"""Tests of the transforms and their manager."""
