"""`make demo-drift`: the loop closes, on a plant of its own, at high speed.

Here: a small fleet whose past is trained on and whose future is replayed through a real server, with Dagster's daemon
watching; what fails in it; and the picture of how the forecasts fared.
Not here: anything that the platform does; this drives the same commands and routes that people use.
"""
