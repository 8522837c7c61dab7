"""Our side of the Feast repository: its configuration, registry, objects and values."""
