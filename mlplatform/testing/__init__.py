"""What tests and benchmarks share, and what a team with plug-ins of its own needs to test them."""
