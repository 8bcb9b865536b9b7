"""``kdexp ui``: MLflow's pages over the studies, on this machine only; short for ``kdexp tracking ui``."""

from kdexp.cli.verbs import tracking

VERB = tracking.VERB.commands["ui"]
