"""The cross-validation splitters: one module each, found by name through `plugins.SPLITTERS`.

Here: which samples a fold trains on and which it is scored on.
Not here: the split into train, reference and test rows, which is written once (`datamodule.splits`).
"""
