"""From windows to rows of features and back to forecasts of many steps."""
