"""Fitted preprocessing: the TransformManager and its transforms."""
