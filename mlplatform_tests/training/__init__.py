"""Tests of training and scoring."""
