"""What happens to a model after it is promoted: the prediction log, drift tests and the retrain policy."""
