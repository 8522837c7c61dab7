"""Model families and naive baselines: one module per family, found by name through `plugins.MODELS`."""
