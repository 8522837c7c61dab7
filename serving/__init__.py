"""Serving: the prediction API, in one process (`serving.local`) or on Ray Serve (`serving.ray_app`)."""
