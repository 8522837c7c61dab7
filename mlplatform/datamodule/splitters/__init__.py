"""The cross-validation splitters: one module each, found by name through `plugins.SPLITTERS`."""
