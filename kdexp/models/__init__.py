"""Models: where they come from, how they are built, what is captured of a forward pass."""
