"""What runs leave in MLflow, and how it is read back."""
