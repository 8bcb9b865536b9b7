"""kdexp: an experiment suite for the distillation of transformer encoders."""

from kdexp.common import beside

__version__ = "0.1.0"

beside.install()
