"""The model registry: pairs that cannot tear, aliases, and the promotion decision."""
