"""From a registered pair to the alias `production`, and back."""
