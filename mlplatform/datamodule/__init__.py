"""From tables to model samples: panels, windows, feature matrices and cross-validation splitters."""
