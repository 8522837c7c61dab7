"""The transforms: one module per subject, found by name through `plugins.TRANSFORMS`.

Here: the arithmetic of one column, its fitted state, and its inverse.
Not here: order and columns of the steps (`preprocessing.manager`).
"""
