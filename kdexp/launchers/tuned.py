"""What a person sees of a search: its space before, its best trials and what mattered after, and figures."""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from kdexp.launchers.board import duration
from kdexp.launchers.measured import said
from kdexp.launchers.search import Search, counted
from kdexp.launchers.settings import Settings, journal, quiet
from kdexp.launchers.space import Dimension, overrides

NAMES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "open", "WAITING": "waiting"}


def show(folder: Path, settings: Settings, space: list[Dimension]) -> None:
    """Print a search without touching it: its space, how it searches, how far it is."""
    console = Console(soft_wrap=True, highlight=False)
    path = folder / "optuna.journal"
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
    for line in importances(search):
        console.print(line, markup=False)
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


def importances(search: Search) -> list[str]:
    """Return one line a metric: each dimension's share in the differences between complete trials."""
    import optuna

    complete = [t for t in search.trials() if t.state.name == "COMPLETE"]
    if len(complete) < 4 or len(search.space) < 2:
        return []
    lines = []
    for index, metric in enumerate(search.settings.metrics):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = optuna.importance.get_param_importances(
                    search.study, target=lambda trial, i=index: trial.values[i]
                )
        except (ValueError, RuntimeError, ImportError):  # no dimension that all complete trials have
            continue
        shares = ", ".join(f"{name} {share:.0%}" for name, share in found.items())
        if shares:
            lines.append(f"importance for {metric}: {shares}")
    return lines


def figures(search: Search, folder: Path) -> None:
    """Draw the search into PNG files: history, importances, parallel coordinates, intermediate values, Pareto front.

    A figure that cannot be drawn (too few trials, say) is left out; one that Optuna fails at is one warning.
    """
    complete = [t for t in search.trials() if t.state.name == "COMPLETE"]
    if len(complete) < 2:
        return
    import matplotlib

    matplotlib.use("Agg")
    import optuna.visualization.matplotlib as draw
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    several = len(search.settings.metrics) > 1
    jobs: list[tuple[str, Any, dict[str, Any]]] = []
    for index, metric in enumerate(search.settings.metrics):
        own: dict[str, Any] = {"target_name": metric}
        if several:
            own["target"] = lambda trial, i=index: trial.values[i]
        end = f"_{metric.rpartition('.')[2]}" if several else ""
        jobs += [
            (f"history{end}", draw.plot_optimization_history, own),
            (f"parallel{end}", draw.plot_parallel_coordinate, own),
        ]
        jobs += (
            [(f"importances{end}", draw.plot_param_importances, own)]
            if len(complete) >= 4 and len(search.space) > 1
            else []
        )
    if 2 <= len(search.settings.metrics) <= 3:
        jobs.append(("pareto", draw.plot_pareto_front, {"target_names": list(search.settings.metrics)}))
    elif not several and search.settings.pruner != "none":
        jobs.append(("intermediate", draw.plot_intermediate_values, {}))
    for name, plot, arguments in jobs:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                axes = plot(search.study, **arguments)
                figure = getattr(axes, "figure", None) or axes.flat[0].figure
                figure.set_size_inches(9, 5)
                figure.savefig(folder / f"{name}.png", dpi=120, bbox_inches="tight")
        except Exception as error:
            print(f"warning: figure {name} could not be drawn: {error}", file=sys.stderr)
        finally:
            pyplot.close("all")


def _counts(trials: list[Any]) -> str:
    counts = Counter(NAMES[trial.state.name] for trial in trials)
    return ", ".join(f"{counts[name]} {name}" for name in NAMES.values() if counts[name]) or "none yet"


def _best(console: Console, search: Search, trial: Any) -> None:
    """Print the best trial: its values as they are typed on a command line, and its runs."""
    metric = said(search.settings.metrics[0], trial.values[0])
    console.print(f"best: trial {trial.number}, {metric}", markup=False, style="bold")
    keys = {dimension.name: dimension.key for dimension in search.space}
    chosen = {keys.get(name, name): value for name, value in trial.params.items()}
    for text in overrides(chosen).values():
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
