"""Command line of the tracking room."""

from __future__ import annotations

import sys

USAGE = """python -m kdexp.tracking sync [root=multirun] [study=NAME] [uri=URI]
    bring MLflow up to date from the folders of all runs; may be repeated, shows nothing twice
python -m kdexp.tracking ui [root=multirun] [port=5000] [uri=URI]
    MLflow's pages over the embedded store, on http://127.0.0.1:5000
python -m kdexp.tracking prepare [uri=sqlite:///multirun/mlflow.db]
    create the embedded store; a study does this by itself"""

COMMANDS = {"sync": ("root", "study", "uri"), "ui": ("root", "port", "uri"), "prepare": ("uri",)}


def main(arguments: list[str]) -> int:
    """Run one command; 2 and one sentence on stderr for a wrong call."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0 if arguments else 2
    from kdexp.tracking.mlflow_store import TrackingError

    try:
        return _run(arguments[0], _settings(arguments[0], arguments[1:]))
    except (ValueError, TrackingError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _settings(command: str, pairs: list[str]) -> dict[str, str]:
    if command not in COMMANDS:
        raise ValueError(f"{command!r} is no command: choose one of {', '.join(COMMANDS)}\n{USAGE}")
    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or key not in COMMANDS[command]:
            choice = ", ".join(f"{k}=..." for k in COMMANDS[command])
            raise ValueError(f"{pair!r} is no setting of {command}: it takes {choice}")
        settings[key] = value
    return settings


def _run(command: str, settings: dict[str, str]) -> int:
    if command == "sync":
        from kdexp.tracking.sync import sync

        return sync(settings.get("root", "multirun"), settings.get("study"), settings.get("uri"))
    if command == "ui":
        from kdexp.tracking.ui import ui

        port = settings.get("port", "5000")
        if not port.isdigit():
            raise ValueError(f"port={port!r} is no number: choose one between 1024 and 65535")
        ui(settings.get("root", "multirun"), int(port), settings.get("uri"))
        return 0
    from kdexp.tracking.mlflow_store import create, resolve

    create(resolve(settings.get("uri", "sqlite:///multirun/mlflow.db")))
    return 0
