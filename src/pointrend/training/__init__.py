"""Training: recipes as frozen dataclasses and one loop to read from top to bottom."""
