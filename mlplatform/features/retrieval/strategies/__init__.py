"""Retrieval strategies: one module per way of reading features, found by name."""
