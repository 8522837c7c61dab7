"""A whole training run: from folds to a fitted, scored candidate; nested cross-validation around it."""
