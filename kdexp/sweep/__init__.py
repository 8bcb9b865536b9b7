"""Grids and searches: from a study's YAML to its points, and what happens to them as a whole."""
