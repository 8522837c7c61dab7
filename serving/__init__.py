"""Serving: the prediction API, in one process (`serving.local`) or on Ray Serve (`serving.ray_app`).

Here: routes, requests turned into panels, answers, metrics, and the pair that is swapped live.
Not here: fitting, searching and promoting; serving imports none of it.
"""
