"""The model families: one module each, named as in YAML, found by name through `plugins.MODELS`."""
