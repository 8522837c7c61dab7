"""The contract that every plug-in of a kind keeps, as pytest modules over the registries; only these need pytest.

`python -m mlplatform.testing.contracts` runs them on the plug-ins from outside. What a single plug-in promises beyond
the contract of its kind is tested elsewhere.
"""
