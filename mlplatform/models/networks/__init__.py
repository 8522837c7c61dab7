"""What neural networks share: the model around a module, batches of windows, quantile outputs."""
