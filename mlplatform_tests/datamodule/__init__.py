"""Tests of panels, samples, splits and splitters."""
