"""The transforms: one module each, found by name through `plugins.TRANSFORMS`."""
