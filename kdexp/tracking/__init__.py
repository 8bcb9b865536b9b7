"""Tracking: a run's own files are the truth, MLflow is a view that is fed from them.

``metrics.jsonl`` in the run's folder gets every number first. A background thread (:class:`Tracker`) or a later
``python -m kdexp.tracking sync`` reads that file and sends what the store does not have yet; both use the same code
(:mod:`kdexp.tracking.view`), so a store that was away, full or killed loses nothing.

Nothing here imports MLflow before it is needed, and with ``tracking.enabled=false`` it is never imported.
"""

from kdexp.tracking.mlflow_store import prepare, problems
from kdexp.tracking.recorder import Tracker
from kdexp.tracking.sync import behind, sync
from kdexp.tracking.ui import ui

__all__ = ["Tracker", "behind", "prepare", "problems", "sync", "ui"]
