"""Heads: what a model answers, how the answer is compared with labels and with a teacher. One file a kind."""
