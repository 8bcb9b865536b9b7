"""What a person sees of a search: its space before, its best trials after."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from kdexp.common import beside
from kdexp.common.searches import JOURNAL, STATES, counted, said, typed
from kdexp.launch.board import duration
from kdexp.sweep.search.optimise import Search
from kdexp.sweep.search.settings import Settings, journal, quiet
from kdexp.sweep.search.space import Dimension


def show(folder: Path, settings: Settings, space: list[Dimension]) -> None:
    """Print a search without touching it: its space, how it searches, how far it is."""
    console = Console(soft_wrap=True, highlight=False)
    path = folder / JOURNAL
    far = ""
    if settings.storage is None and path.exists():
        import optuna

        quiet()
        trials = counted(optuna.load_study(study_name=folder.name, storage=journal(path)).get_trials(deepcopy=False))
        far = f" ({_counts(trials)})"
    console.print(f"search {folder.name}: {settings.n_trials} trials in all{far}", markup=False)
    for dimension in space:
        name = dimension.key if dimension.name == dimension.key else f"{dimension.name} ({dimension.key})"
        console.print(f"  {name}: {dimension.described()}", markup=False)
    aims = ", ".join(f"{d} {m}" for m, d in zip(settings.metrics, settings.directions, strict=True))
    seeds = f", seeds {', '.join(map(str, settings.seeds))} each" if settings.seeds else ""
    console.print(f"  {aims}; sampler {settings.sampler}, pruner {settings.pruner}{seeds}", markup=False)
    console.print("dry=true: nothing was run or written")


def summary(search: Search, elapsed: float, command: str) -> None:
    """Print how a search stands: its trials, the best of them, and which settings mattered."""
    console = Console(soft_wrap=True, highlight=False)
    trials = search.trials()
    console.print(
        f"search {search.folder.name}: {len(trials)} of {search.total} trials ({_counts(trials)}), {duration(elapsed)}",
        markup=False,
    )
    best = search.best()
    if best and len(search.settings.metrics) == 1:
        _best(console, search, best[0])
    elif best:
        console.print(_table(search, best))
    for trial in failed(search):
        names = ", ".join(point["name"] for point in trial.user_attrs.get("points", []))
        console.print(f"failed: trial {trial.number}: {trial.user_attrs.get('error')}", markup=False, style="red")
        console.print(
            f"        {names}; hydra.sweeper.retries={trial.user_attrs.get('attempts', 0)} tries again", markup=False
        )
    if any(not t.state.is_finished() for t in trials) or len(trials) < search.total:
        console.print(f"To continue, run the same command again: {command}", markup=False)


def failed(search: Search) -> list[Any]:
    """Return the trials that failed for good."""
    return [trial for trial in search.trials() if trial.state.name == "FAIL"]


def analysis(search: Search, figures: bool) -> None:
    """Have the finished search looked at: what mattered is printed, and figures are drawn into the study's folder.

    By the analysis, in a process of its own: this program does not know it. What fails there is one warning.
    """
    enough = sum(trial.state.name == "COMPLETE" for trial in search.trials()) >= (2 if figures else 4)
    if not enough or (not figures and len(search.space) < 2):
        return
    package = str(Path(__file__).resolve().parents[3])
    path = os.pathsep.join(part for part in (package, os.environ.get("PYTHONPATH", "")) if part)
    command = [sys.executable, "-m", f"{beside.ANALYSIS}.search"]
    words = [f"folder={search.folder}", f"figures={str(figures).lower()}", "storage=-"]
    sys.stdout.flush()
    done = subprocess.run(
        [*command, *words], env={**os.environ, "PYTHONPATH": path}, check=False,
        input=search.settings.storage or "", text=True,  # it may hold a password, which a command line would show
    )  # fmt: skip
    if done.returncode:
        print(f"warning: the search was not analysed: python -m analysis.search {words[0]}", file=sys.stderr)


def _counts(trials: list[Any]) -> str:
    counts = Counter(STATES[trial.state.name] for trial in trials)
    return ", ".join(f"{counts[name]} {name}" for name in STATES.values() if counts[name]) or "none yet"


def _best(console: Console, search: Search, trial: Any) -> None:
    """Print the best trial: its values as they are typed on a command line, and its runs."""
    metric = said(search.settings.metrics[0], trial.values[0])
    console.print(f"best: trial {trial.number}, {metric}", markup=False, style="bold")
    for text in typed(trial):
        console.print(f"  {text}", markup=False)
    for point in trial.user_attrs.get("points", []):
        console.print(f"  run {search.folder / point['name']}", markup=False)


def _table(search: Search, front: list[Any]) -> Table:
    """Return the Pareto front as a table, the best in the first metric at the top."""
    metrics = search.settings.metrics
    title = f"Pareto front: {len(front)} trials that no other one beats in everything"
    table = Table(title=title, title_justify="left")
    table.add_column("trial", justify="right")
    for metric in metrics:
        table.add_column(metric, justify="right")
    for dimension in search.space:
        table.add_column(dimension.name.rpartition(".")[2], overflow="fold")
    for trial in sorted(front, key=lambda t: t.values[0], reverse=search.settings.directions[0] == "maximize"):
        scores = [said(metric, value).rpartition(" ")[2] for metric, value in zip(metrics, trial.values, strict=True)]
        chosen = [trial.params.get(d.name, "") for d in search.space]
        table.add_row(str(trial.number), *scores, *(f"{v:.4g}" if isinstance(v, float) else str(v) for v in chosen))
    return table
