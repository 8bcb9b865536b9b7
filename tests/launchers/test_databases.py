"""A search whose trials are in PostgreSQL: a real server, several sweepers, one of them killed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from kdexp.common import files

PASSWORD = "not-to-be-seen"


def program(name: str) -> str:
    """Where a program of PostgreSQL is, newest version first; Debian keeps them out of PATH."""
    found = shutil.which(name) or next(iter(sorted(Path("/").glob(f"usr/lib/postgresql/*/bin/{name}"))[::-1]), None)
    if found is None:
        pytest.skip(f"no PostgreSQL on this machine: {name} is missing (Debian: apt-get install postgresql)")
    return str(found)


@pytest.fixture
def server() -> Iterator[str]:
    """A PostgreSQL server of one's own; the address of an empty database."""
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("PostgreSQL needs the package psycopg (pip install 'kdexp[postgresql]')")
    initdb, postgres = program("initdb"), program("postgres")
    # root may not run it; and pytest's own folders are closed to others, so it lives beside them
    who: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    home = Path(tempfile.mkdtemp(prefix="kdexp-pg-"))
    if who:
        shutil.chown(home, "postgres", "postgres")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    secret = home / "secret"
    secret.write_text(PASSWORD)
    secret.chmod(0o644)
    process = None
    try:
        made = [initdb, "-D", f"{home}/data", "-U", "kdexp", "-A", "scram-sha-256", f"--pwfile={secret}", "-N"]
        subprocess.run(made, cwd=home, check=True, capture_output=True, **who)
        settings = ("listen_addresses=127.0.0.1", f"port={port}", f"unix_socket_directories={home}", "fsync=off")
        with (home / "log").open("w") as log:
            asked = [postgres, "-D", f"{home}/data", *(word for one in settings for word in ("-c", one))]
            process = subprocess.Popen(asked, cwd=home, stdout=log, stderr=log, **who)
        _answers(process, port, home / "log")
        yield f"postgresql://kdexp:{PASSWORD}@127.0.0.1:{port}/postgres"
    finally:
        if process is not None:
            process.send_signal(signal.SIGINT)  # it shuts down without waiting for connections
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(home, ignore_errors=True)


def _answers(process: subprocess.Popen, port: int, log: Path) -> None:
    import psycopg

    end = time.time() + 60
    while True:
        try:
            psycopg.connect(host="127.0.0.1", port=port, user="kdexp", password=PASSWORD, dbname="postgres").close()
            return
        except psycopg.OperationalError:
            assert process.poll() is None and time.time() < end, log.read_text()
            time.sleep(0.1)


@pytest.mark.slow
def test_sweepers_share_a_search_in_postgresql(server: str, shell: Any, until: Callable) -> None:
    command = ("+experiment=search", "hydra.sweeper.n_trials=12", f"hydra.sweeper.storage='{server}'")
    ways = ("hydra.launcher.slots=2", "hydra.launcher.slots=1", "hydra/launcher=basic", "hydra.launcher.slots=2")
    sweepers = [shell.start(*command, way, STUB_SECONDS="1.5") for way in ways]
    until(lambda: any(int(parent) == sweepers[0].pid or _has(sweepers[0].pid, parent) for parent in parents(shell)))
    sweepers[0].kill()
    for sweeper in sweepers:
        _, err = sweeper.communicate(timeout=120)
        assert sweeper is sweepers[0] or sweeper.returncode == 0, err
    study = optuna.load_study(study_name="search", storage=server)
    assert [trial.number for trial in study.trials] == list(range(12))
    assert {trial.state.name for trial in study.trials} == {"COMPLETE"}
    assert len({trial.user_attrs["driver"] for trial in study.trials}) == 3
    for trial in study.trials:
        (point,) = trial.user_attrs["points"]
        assert trial.value == shell.result("search", point["name"])["best"]["scores"]["accuracy"]
    ran = [name for name, _, _ in shell.executions()]
    assert len(set(ran)) == 12
    assert len(ran) <= 12 + 2  # only what the killed one had in its two slots was begun again
    code, out, err = shell.run(*command)
    assert (code, len(shell.executions())) == (0, len(ran)), err
    folder = shell.where / "multirun/search"
    assert not (folder / "optuna.journal").exists()
    assert not any(PASSWORD in path.read_text() for path in folder.rglob("*") if path.is_file())
    assert PASSWORD not in out + err
    reads_in_report(folder, server)


def reads_in_report(folder: Path, server: str) -> None:
    """The report reads the trials from the database, with the address that has the password."""
    from analysis import search
    from analysis.report import inline

    with pytest.raises(ValueError, match="give storage=URL"):
        search.section(folder, inline)
    found = search.section(folder, inline, server)
    assert found is not None and len(found["trials"]) == 12
    assert files.read_json(folder / ".optuna/search.json")["storage"].startswith("postgresql://kdexp@127.0.0.1:")


def parents(shell: Any) -> list[str]:
    return [parent for _, _, parent in shell.executions()]


def _has(sweeper: int, child: str) -> bool:
    """Whether a process (the one that runs are forked from) belongs to a sweeper."""
    import psutil

    try:
        return sweeper in [one.pid for one in psutil.Process(int(child)).parents()]
    except psutil.NoSuchProcess:
        return False
