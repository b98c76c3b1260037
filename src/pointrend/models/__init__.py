"""Whole networks: images in, typed results out. `instance` and `semantic` are the two stories to read."""
