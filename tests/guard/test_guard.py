"""A configuration from a stranger is refused before anything of it is imported, called, read or written."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from hostile import HOSTILE  # noqa: E402

TOKEN = "hf_planted0123456789"
pytestmark = pytest.mark.timeout(900)  # the first one waits for all


class Planted:
    """Touches a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch marker",)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What came of every case; all in one process, which has the package ``evil`` in its working directory.

    Workers of one session share it: the first one makes it.
    """
    base = tmp_path_factory.getbasetemp()
    kept = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "hostile.json"
    with FileLock(f"{kept}.lock"):
        if not kept.is_file():
            kept.write_text(carried_out(tmp_path_factory.mktemp("stranger")))
        return json.loads(kept.read_text())


def carried_out(folder: Path) -> str:
    """Try every case in a folder, and return what came of them."""
    plant = "from pathlib import Path\nPath('marker').touch()\n"
    for path, text in {
        "evil/__init__.py": plant,
        "evil/inner/__init__.py": plant,
        "evil/inner/model/config.json": "{}",
        "evil/conf/__init__.py": plant,
        "evil/conf/config.yaml": "a: 1\n",
        "evil/model/config.json": "{}",
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    (folder / "evil.pkl").write_bytes(pickle.dumps(Planted()))
    paths = os.pathsep.join([str(HERE.parents[1]), str(HERE), str(folder)])
    env = {**os.environ, "PYTHONPATH": paths, "HF_TOKEN": TOKEN, "KDEXP_DATA": str(folder)}
    done = subprocess.run(
        [sys.executable, str(HERE / "app.py")], cwd=folder, env=env, capture_output=True, text=True, timeout=880
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return (folder / "results.json").read_text()


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_refused(results: dict[str, dict[str, Any]], name: str):
    found = results[name]
    assert found["code"] == 2, found
    said = found["err"]
    assert said.count("must change before this can run") == 1 and "Traceback" not in said, said
    assert HOSTILE[name].says in said
    assert all(sign.isprintable() or sign == "\n" for sign in said) and len(said) < 3000, said
    assert TOKEN not in said + found["out"] and "problem(s)" not in said
    assert found["imported"] == [] and not any("marker" in path or "multirun" in path for path in found["written"])
    assert found["seconds"] < 60, found["seconds"]  # one without end takes hours
