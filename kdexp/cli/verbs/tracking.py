"""``python -m kdexp tracking sync | ui | prepare``: MLflow's store, which shows what the runs' folders hold."""

from __future__ import annotations

from kdexp import tracking
from kdexp.common import tracked
from kdexp.common.arguments import JSON, ROOT, STUDY, Command, Group, Key, print_json, whole
from kdexp.tracking.mlflow_store import create, public, resolve
from kdexp.tracking.ui import HOST


def sync(study: str, root: str, uri: str, json: bool) -> int:
    """Send what is missing; 1 if something is left."""
    said: list[str] = []
    left = tracking.sync(root, study or None, uri or None, said.append if json else print)
    if json:
        print_json({"complete": not left, "said": said})
    return left


def ui(root: str, port: int, uri: str, json: bool) -> int:
    """Become the server of MLflow's pages."""
    address = {"address": f"http://{HOST}:{port}"}
    tracking.ui(root, port, uri or None, (lambda line: print_json(address)) if json else print)
    return 0


def prepare(uri: str, json: bool) -> int:
    """Create the embedded store."""
    store = resolve(tracked.uri("multirun", uri))
    create(store)
    if json:
        print_json({"uri": public(store)})
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
                "study": Key("only this study; empty: all", "", kind=_study_or_all, bare=True),
                "root": ROOT,
                "uri": Key("the store; empty: the one each run was made for, else MLFLOW_TRACKING_URI", ""),
                "json": JSON,
            },
        ),
        "ui": Command(
            "MLflow's pages over the embedded store, on this machine only, until Ctrl-C.",
            ui,
            {"root": ROOT, "port": Key("TCP port on 127.0.0.1", "5000", kind=whole), "uri": STORE, "json": JSON},
        ),
        "prepare": Command(
            "Create the embedded store; a study does this by itself.",
            prepare,
            {"uri": Key("the store; empty: MLFLOW_TRACKING_URI, else sqlite:///multirun/mlflow.db", ""), "json": JSON},
        ),
    },
)
