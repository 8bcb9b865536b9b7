"""``python -m kdexp tracking sync | ui | prepare``: MLflow's store, which shows what the runs' folders hold."""

from __future__ import annotations

from kdexp import tracking
from kdexp.common import tracked
from kdexp.common.arguments import ROOT, STUDY, Command, Group, Key, whole
from kdexp.tracking.mlflow_store import create, resolve


def sync(root: str, study: str, uri: str) -> int:
    """Send what is missing; 1 if something is left."""
    return tracking.sync(root, study or None, uri or None)


def ui(root: str, port: int, uri: str) -> int:
    """Become the server of MLflow's pages."""
    tracking.ui(root, port, uri or None)
    return 0


def prepare(uri: str) -> int:
    """Create the embedded store."""
    create(resolve(tracked.uri("multirun", uri)))
    return 0


def _study_or_all(text: str) -> str:
    return STUDY.kind(text) if text else ""


STORE = Key("MLflow's store; empty: MLFLOW_TRACKING_URI, else <root>/mlflow.db", "")
VERB = Group(
    "MLflow: bring it up to date from the runs' folders, look at it.",
    {
        "sync": Command(
            "Bring MLflow up to date from the folders of all runs; may be repeated, shows nothing twice.",
            sync,
            {
                "root": ROOT,
                "study": Key("only this study; empty: all", "", kind=_study_or_all),
                "uri": Key("the store; empty: the one each run was made for, else MLFLOW_TRACKING_URI", ""),
            },
        ),
        "ui": Command(
            "MLflow's pages over the embedded store, on this machine only, until Ctrl-C.",
            ui,
            {"root": ROOT, "port": Key("TCP port on 127.0.0.1", "5000", kind=whole), "uri": STORE},
        ),
        "prepare": Command(
            "Create the embedded store; a study does this by itself.",
            prepare,
            {"uri": Key("the store; empty: MLFLOW_TRACKING_URI, else sqlite:///multirun/mlflow.db", "")},
        ),
    },
)
