"""Executors: where the trials of a search run. One module per executor, found by the name it is registered under.

They import the search inside functions: the configuration, which serving reads too, looks up their names.
"""
