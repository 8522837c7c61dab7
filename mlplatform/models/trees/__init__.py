"""What tree families share, by library and by task."""
