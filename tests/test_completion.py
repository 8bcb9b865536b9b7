"""Completion by the tab key, in a real bash at a terminal; and what is suggested for a line."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kdexp.cli import completion
from kdexp.sweep import study as studies
from tests.conftest import RunProgram, program_environment


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a study ``smallest`` in it."""
    monkeypatch.chdir(tmp_path)
    studies.write(tmp_path / "multirun" / "smallest", "smallest", "full", "kdexp +experiment=smallest", [])
    return tmp_path


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("kdexp tab", ["tables"]),
        ("kdexp obj", []),
        ("kdexp help mapp", ["mapping"]),
        ("kdexp store ", ["list", "show", "verify", "gc"]),
        ("kdexp store gc da", ["days="]),
        ("kdexp tables sm", ["smallest"]),
        ("kdexp tables study=", ["study=smallest"]),
        ("kdexp tables smallest s", ["source=mlflow", "source=folders"]),
        ("kdexp tables smallest source=folders layout=m", ["layout=methods"]),
        ("kdexp tables smallest source=folders so", []),
        ("kdexp objective=kd init=", []),
    ],
)
def test_what_can_follow(folder: Path, line: str, expected: list[str]) -> None:
    assert completion.suggestions(line) == expected


def test_a_line_is_needed(kdexp: RunProgram) -> None:
    done = kdexp(["-sc", "query=bash"], env={"COMP_LINE": None})
    assert done.returncode == 2 and "with its line in COMP_LINE" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_real_bash_completes_verbs_studies_and_choices(folder: Path) -> None:
    """Keys are typed at a terminal; what bash writes there is read."""
    program = folder / "bin" / "kdexp"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nimport sys\nfrom kdexp.cli.main import main\nsys.exit(main())\n")
    program.chmod(0o755)
    variables = program_environment({"PATH": f"{program.parent}:{os.environ['PATH']}", "PS1": "$ ", "TERM": "dumb"})
    ours, theirs = pty.openpty()
    command = ["bash", "--norc", "--noprofile", "-i"]
    shell = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=variables, start_new_session=True)
    os.close(theirs)

    def typed(keys: str, until: str) -> str:
        os.write(ours, keys.encode())
        said, end = "", time.monotonic() + 60
        while time.monotonic() < end and not re.search(until, said):
            if select.select([ours], [], [], 0.2)[0]:
                said += os.read(ours, 4096).decode(errors="replace")
        assert re.search(until, said), f"{keys!r}: {said!r}"
        return said

    try:
        typed('eval "$(kdexp -sc install=bash)"; echo installed $?\n', r"installed 0\s")
        typed("kdexp tabl\t", r"kdexp tables$")
        typed(" sma\t", r" smallest$")
        typed(" layout=meth\t", r" layout=methods$")
        typed("\x15kdexp objective=minilm_\t", r"objective=minilm_v2$")
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)
