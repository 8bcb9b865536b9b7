"""kdexp from Python: the command line's requests as calls, its results as objects, its sentences as an exception."""

from kdexp.common.problems import ConfigError
from kdexp.face.calls import distill, export, load, predict, study
from kdexp.face.outcomes import Export, Run
from kdexp.face.studies import Study

__all__ = ["ConfigError", "Export", "Run", "Study", "distill", "export", "load", "predict", "study"]
