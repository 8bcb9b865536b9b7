"""A study from Python: carried out, looked at, read."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from kdexp.cli import commands
from kdexp.cli.words import CONFIG_PATH, experiment
from kdexp.common import names
from kdexp.common.problems import ConfigError
from kdexp.config.identity import ROOT
from kdexp.face import spelling
from kdexp.face.outcomes import Run
from kdexp.face.process import ask
from kdexp.sweep import status

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Study:
    """A grid of runs that answers one question; nothing is run before :meth:`run`.

    Attributes:
        name: of its folder below ``multirun/`` and of its experiment in MLflow.
        words: of the command line that carries it out; none = the one that it was started with.
    """

    name: str
    words: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where its runs are."""
        return Path(ROOT) / self.name

    def run(self, *words: str, show: bool = True, **settings: Any) -> Study:
        """Carry out what is missing of it, and return it; what is finished is not repeated.

        Args:
            words: further words of the command line, such as ``"hydra.launcher.slots=2"``.
            show: print its progress as it comes.
            settings: as :func:`kdexp.study` takes them. ``dry=True`` prints the plan and its cost, and runs nothing.

        Raises:
            ConfigError: something must change first; the problems of all runs, and nothing was started.
            RuntimeError: runs failed; the others are finished, and the same call tries those again.
            KeyboardInterrupt: a person stopped it; runs have saved themselves.
        """
        answer = ask([*(self.words or self._started_with()), *words, *spelling.overrides(settings, swept=True)], show)
        if answer.code:
            bad = [row for row in status.rows(self.name) if row["state"] not in ("finished", "pruned")]
            if not bad:
                raise answer.failure()
            each = [f"{row['name']} {row['state']}: {row['error'] or 'see its log'}" for row in bad]
            raise RuntimeError(f"study {self.name}: {len(bad)} runs are not finished:\n  " + "\n  ".join(each))
        return self

    def _started_with(self) -> list[str]:
        """Return the words of the command that started it, as its study.json has them: ``python -m kdexp ...``."""
        command = shlex.split(str(status.read(self.name)["command"]))
        return command[command.index("kdexp") + 1 :]

    def status(self) -> pd.DataFrame:
        """Return how far it is: a row a run, with labels, ``seed``, ``state``, ``score``, ``seconds``, ``error``."""
        import pandas as pd

        rows = status.rows(self.name)
        return pd.DataFrame([{**{key: row[key] for key in row if key != "labels"}, **row["labels"]} for row in rows])

    def runs(self, settings: str | Iterable[str] = "varied") -> pd.DataFrame:
        """Return its finished runs, a row each; see :func:`kdexp.load`."""
        return load(self.name, ROOT, settings)

    def table(self, metric: str = "", **options: Any) -> pd.DataFrame:
        """Return the table of means that ``python -m kdexp tables`` prints, a row a cell, scores x 100.

        Args:
            metric: one for all tasks; '' = each task's own.
            options: ``incomplete="allow"`` takes a study that is not whole; ``extra``, ``mixture`` and ``by`` as the
                verb has them.

        Raises:
            ValueError: the study is unknown, not whole, or its runs cannot be compared; the sentence says what helps.
        """
        frame: pd.DataFrame = commands.reader("frames").table(self.name, ROOT, metric, **options)
        return frame

    def __getitem__(self, name: str) -> Run:
        """Return one of its runs by its name.

        Raises:
            KeyError: it has no such run.
        """
        if name not in {row["name"] for row in status.rows(self.name)}:
            raise KeyError(f"study {self.name} has no run {name}; .status() lists them")
        return Run(self.folder / name)

    def __repr__(self) -> str:
        """Say how far it is."""
        try:
            rows = status.rows(self.name)
        except ValueError:
            return f"Study {self.name}: not started; .run() carries it out, .run(dry=True) says what that costs"
        states = [row["state"] for row in rows]
        counted = ", ".join(f"{states.count(state)} {state}" for state in status.STATES if state in states)
        return f"Study {self.name}: {len(rows)} runs ({counted})\n  folder   {self.folder.absolute()}"


def made(name: str, given: Sequence[str]) -> Study:
    """Return the study of an experiment, or one of a grid that is given here; see :func:`kdexp.study`."""
    if names.study_problem(name):
        raise ConfigError([f"study {name!r} {names.study_problem(name)}."])
    chosen = experiment(name)
    named = next((word.partition("=")[2] for word in reversed(given) if word.startswith("study=")), None)
    if chosen is None:
        if named not in (None, name):
            raise ConfigError([f"study={named}: the study is called {name} already; leave one of the two out."])
        grid = ["-m", f"study={name}", *given] if given else []
        return Study(name, tuple(word for n, word in enumerate(grid) if n < 2 or not word.startswith("study=")))
    file = Path(CONFIG_PATH) / "experiment" / f"{name}.yaml"
    called = named or str(yaml.safe_load(file.read_text(encoding="utf-8")).get("study", name))
    if "$" in called:
        raise ConfigError([f"experiment {name} calls its study {called}: say which with study=NAME."])
    return Study(called, (chosen, *given))


def load(study: str, root: str | Path, settings: str | Iterable[str]) -> pd.DataFrame:
    """Return a study's finished runs; see :func:`kdexp.load`."""
    frame: pd.DataFrame = commands.reader("frames").runs(study, root, settings)
    return frame
