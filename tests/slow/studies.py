"""A small study that can be started, killed, looked at, and compared with an undisturbed one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from kdexp.common import files
from kdexp.tracking.files import first_shown
from tests.conftest import program_environment
from tests.test_runs import toy

GRID = [
    "-m", "objective=kd,hid_seq", "init=first,random", "seed=1,2", "hydra.launcher.slots=2", "runtime.checkpoint_s=0",
    "runtime.log_every=3", "study=eight",
]  # fmt: skip
"""Eight runs of one or two phases, a checkpoint an update."""


class Study:
    """The study in a folder of its own.

    Args:
        folder: where ``multirun/`` lies.
        words: the command line.
        env: changes of the environment.

    Attributes:
        output: what the command has said.
    """

    def __init__(self, folder: Path, words: list[str], env: dict[str, str | None] | None = None):
        self.folder, self.words, self.env = folder, words, env or {}
        self.output = folder / "output.txt"
        folder.mkdir(parents=True, exist_ok=True)

    @classmethod
    def toy(cls, folder: Path, bert: Path, csv: Path, *more: str) -> Study:
        """Make the study of :data:`GRID`, tracked in a store of its own."""
        return cls(folder, [*GRID, *(word for word in toy(bert, csv) if word != "tracking=off"), *more])

    @property
    def runs(self) -> Path:
        """Where its runs lie."""
        return self.folder / "multirun" / "eight"

    @property
    def store(self) -> Path:
        """Where its stages lie."""
        return self.folder / "multirun" / ".store"

    def start(self) -> subprocess.Popen[str]:
        """Start the command in a process group of its own; its output goes to :attr:`output`."""
        with self.output.open("a") as out:
            return subprocess.Popen(
                [sys.executable, "-m", "kdexp", *self.words], cwd=self.folder, env=program_environment(self.env),
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, text=True,
            )  # fmt: skip

    def finish(self, timeout: float = 600) -> tuple[int, str]:
        """Carry the command out to its end; returns its exit code and what it said."""
        self.output.unlink(missing_ok=True)
        code = self.start().wait(timeout)
        return code, self.output.read_text()

    def verify(self) -> tuple[int, str]:
        """Have every stage of the store read; returns the exit code and what was said."""
        words = [sys.executable, "-m", "kdexp", "store", f"store={self.store}", "verify"]
        done = subprocess.run(words, cwd=self.folder, env=program_environment(self.env), capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    def results(self) -> dict[str, dict[str, Any]]:
        """Return the results that are there, by the names of their runs."""
        found = [json.loads(path.read_text()) for path in self.runs.glob("*/result.json")]
        return {result["run"]["name"]: result for result in found}

    def facts(self) -> dict[str, Any]:
        """Return of every run what must not depend on what happened to it: scores, best, weights, curve."""
        return {
            name: {
                "scores": result["scores"], "best": result["best"], "teacher": result["teacher"]["scores"],
                "weights": files.checksum(Path(result["student"]["weights"]) / "model.safetensors"),
                "curve": self.curve(name),
            }
            for name, result in self.results().items()
        }  # fmt: skip

    def curve(self, name: str) -> dict[str, float]:
        """Return the points of a run's own phases as MLflow shows them: name and step -> value."""
        lines = first_shown(self.runs / name / "metrics.jsonl", 0)
        points = [point for _, line in lines for point in line if point.name.startswith("distill.")]
        return {f"{point.name} {point.step}": point.value for point in points}

    def leftovers(self) -> list[Path]:
        """Return what should not be in a finished stage, or beside a finished run."""
        stages = [path.parent for path in self.store.glob("*/meta.json")]
        strange = [p for stage in stages for p in stage.rglob("*") if p.name.startswith(".") or p.name == "holder.json"]
        return strange + list(self.runs.glob("*/*.tmp"))
