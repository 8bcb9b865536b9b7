"""Searches: Optuna behind ``hydra/sweeper=optuna``, with pruning, resume and reports."""
