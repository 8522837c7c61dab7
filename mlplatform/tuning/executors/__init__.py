"""Executors: where the trials of a search run. One module each, found by name through `plugins.EXECUTORS`.

Here: processes and how trials reach them. They import the search inside functions, because configuration looks up
their names. Not here: what a trial does (`tuning.objective`).
"""
