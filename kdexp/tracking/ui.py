"""``python -m kdexp.tracking ui``: MLflow's own pages over the embedded store, on this machine only."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from kdexp.common import sqlite, tracked
from kdexp.common.arguments import PROGRAM
from kdexp.common.tracked import ARTIFACTS, VARIABLE
from kdexp.tracking import moved, pages
from kdexp.tracking.mlflow_store import create, public, resolve

HOST = "127.0.0.1"


def command(uri: str, port: int, artifacts: Path) -> list[str]:
    """The server's command line: one worker, loopback only."""
    store = ["--backend-store-uri", uri, "--default-artifact-root", artifacts.as_uri()]
    return [sys.executable, "-m", "mlflow", "server", *store, "--host", HOST, "--port", str(port), "--workers", "1"]


def environment() -> dict[str, str]:
    """What the server is told: no job runners (eight processes, 1.6 GB), no telemetry."""
    defaults = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    return {**defaults, **os.environ}


def ui(root: str | Path = "multirun", port: int = 5000, uri: str | None = None, say: Callable = print) -> None:
    """Serve the store under ``root`` until Ctrl-C; the current process becomes the server.

    Args:
        root: folder of the studies.
        port: TCP port on 127.0.0.1.
        uri: another store; default MLFLOW_TRACKING_URI, else ``sqlite:///<root>/mlflow.db``.
        say: is told the addresses, in sentences.

    Raises:
        ValueError: the port is taken or no port, or ``uri`` is a server already.
        kdexp.tracking.mlflow_store.TrackingError: the embedded store cannot be created.
    """
    given = "uri" if uri else VARIABLE
    uri = resolve(tracked.uri(root, uri or ""))
    if urlsplit(uri).scheme in ("http", "https"):
        raise ValueError(f"{given}={public(uri)} is a server: open that address in a browser")
    if not 0 < port < 65536:
        raise ValueError(f"port={port} is no port: choose one between 1024 and 65535")
    _check_free(port)
    create(uri)
    server, path = f"http://{HOST}:{port}", sqlite.path_of(uri)
    if path is not None:
        moved.follow(path)
    lines = [f"MLflow shows {public(uri)} on {server}/#/experiments?workflowType=machine_learning in a few seconds"]
    lines += [f"  {study}: {address}" for study, address in (pages.addresses(server, path) if path else [])]
    say("\n".join([*lines, "Ctrl-C ends it"]))
    sys.stdout.flush()
    os.execve(sys.executable, command(uri, port, Path(root).resolve() / ARTIFACTS), environment())


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as problem:
            raise ValueError(
                f"port={port} on {HOST} cannot be used ({problem.strerror}): end the program that holds it, "
                f"or choose another: {PROGRAM} ui port={port + 1}"
            ) from None
