"""The contract that every plug-in of a kind keeps, as pytest modules over the registries; only these need pytest.

`python -m mlplatform.testing.contracts` runs them on the plug-ins from outside.

Here: what every plug-in of a kind keeps, whoever wrote it.
Not here: what one plug-in promises beyond that; its own tests say so.
"""
