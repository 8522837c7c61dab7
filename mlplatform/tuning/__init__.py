"""Hyperparameter tuning with Optuna over the cross-validation folds."""
