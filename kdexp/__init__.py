"""kdexp: an experiment suite for the distillation of transformer encoders."""

__version__ = "0.1.0"
