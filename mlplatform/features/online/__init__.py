"""What is in the online store and how it gets there: materialised, pushed, read back."""
