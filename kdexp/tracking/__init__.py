"""Tracking: a run's own files are the truth, MLflow is a view that is fed from them.

A run writes ``metrics.jsonl``, ``status.json`` and ``result.json`` into its folder (:mod:`kdexp.tracking.recorder`) and
knows nothing of MLflow. One function sends what the store does not have yet (:mod:`kdexp.tracking.sync`): a process
beside the study, or beside a run that is alone (:mod:`kdexp.tracking.follow`), calls it every few seconds, and
``python -m kdexp.tracking sync`` calls it later. So a store that was away, full or killed loses nothing.

Nothing here imports MLflow before it is needed, and with ``tracking.enabled=false`` it is never imported.
"""

from kdexp.tracking.follow import following
from kdexp.tracking.mlflow_store import prepare, problems
from kdexp.tracking.recorder import Tracker
from kdexp.tracking.sync import behind, sync
from kdexp.tracking.ui import ui

__all__ = ["Tracker", "behind", "following", "prepare", "problems", "sync", "ui"]
