"""What a person sees of a search: its space before, its best trials and what mattered after, and figures."""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from kdexp.launch.board import duration
from kdexp.sweep.search.metrics import said
from kdexp.sweep.search.optimise import Search, counted
from kdexp.sweep.search.settings import Settings, journal, quiet
from kdexp.sweep.search.space import Dimension, overrides

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
    lines = []
    for index, metric in enumerate(search.settings.metrics):
        found = shares(search.study, index) if len(search.space) > 1 else {}
        if found:
            said = ", ".join(f"{name} {share:.0%}" for name, share in found.items())
            lines.append(f"importance for {metric}: {said}")
    return lines


def shares(study: Any, index: int = 0) -> dict[str, float]:
    """Return each dimension's share in what sets the trials apart that are best in one metric; largest first.

    Optuna's own estimate (PED-ANOVA: the best tenth against all). Empty with fewer than four complete trials, or where
    there is no dimension that it can judge.
    """
    import optuna

    if len(_complete(study)) < 4:
        return {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return dict(optuna.importance.get_param_importances(study, target=_low(study, index)))
    except (ValueError, RuntimeError, ImportError):
        return {}


def figures(search: Search, folder: Path) -> None:
    """Draw the search into PNG files: history, importances, parallel coordinates, intermediate values, Pareto front."""
    for name, figure in drawings(search.study, search.settings.metrics, search.settings.pruner != "none"):
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / f"{name}.png", dpi=120, bbox_inches="tight")


def drawings(study: Any, metrics: Sequence[str], pruned: bool) -> Iterator[tuple[str, Any]]:
    """Yield (name, matplotlib figure) of an Optuna study; names begin with history, importances, ...

    A figure that cannot be drawn (too few trials, say) is left out; one that Optuna fails at is one warning.

    Args:
        study: an ``optuna.Study``.
        metrics: what its values are.
        pruned: whether there was a pruner, and so intermediate values to show.
    """
    complete = _complete(study)
    if len(complete) < 2:
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    study = _shortened(study)
    for name, plot, arguments in _plots(study, complete, metrics, pruned):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                axes = plot(study, **arguments)
                figure = getattr(axes, "figure", None) or axes.flat[0].figure
                figure.set_size_inches(9, 5)
                figure.canvas.draw()  # what cannot be drawn is found here
            yield name, figure
        except Exception as error:
            print(f"warning: figure {name} could not be drawn: {error}", file=sys.stderr)
        finally:
            pyplot.close("all")


def _plots(
    study: Any, complete: list[Any], metrics: Sequence[str], pruned: bool
) -> list[tuple[str, Any, dict[str, Any]]]:
    """List (name, function of Optuna, its arguments)."""
    import optuna.visualization.matplotlib as draw

    several, searched = len(metrics) > 1, {name for trial in complete for name in trial.params}
    plots: list[tuple[str, Any, dict[str, Any]]] = []
    for index, metric in enumerate(metrics):
        own: dict[str, Any] = {"target_name": metric}
        if several:
            own["target"] = lambda trial, i=index: trial.values[i]
        end = f"_{metric.rpartition('.')[2]}" if several else ""
        plots.append((f"history{end}", draw.plot_optimization_history, own))
        plots.append((f"parallel{end}", draw.plot_parallel_coordinate, own))
        if len(complete) >= 4 and len(searched) > 1:
            low = {"target": _low(study, index), "target_name": metric}
            plots.append((f"importances{end}", draw.plot_param_importances, low))
    if 2 <= len(metrics) <= 3:
        plots.append(("pareto", draw.plot_pareto_front, {"target_names": list(metrics)}))
    elif not several and pruned:
        plots.append(("intermediate", draw.plot_intermediate_values, {}))
    return plots


def _low(study: Any, index: int) -> Callable[[Any], float]:
    """Return a metric of a trial, the lower the better, as the estimate of importances takes any target."""
    sign = 1.0 if study.directions[index].name == "MINIMIZE" else -1.0
    return lambda trial: sign * trial.values[index]


def _shortened(study: Any) -> Any:
    """Copy a study into memory, with the last part of each name where that is enough: figures cut long ones off."""
    import optuna

    trials = study.get_trials()
    names = {name for trial in trials for name in trial.params}
    ends = Counter(name.rpartition(".")[2] for name in names)
    short = {name: end if ends[end := name.rpartition(".")[2]] == 1 else name for name in names}
    copied = optuna.create_study(directions=study.directions)
    for trial in trials:
        trial.distributions = {short.get(name, name): kind for name, kind in trial.distributions.items()}
        trial.params = {short[name]: value for name, value in trial.params.items()}
        copied.add_trial(trial)
    return copied


def _complete(study: Any) -> list[Any]:
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]


def _counts(trials: list[Any]) -> str:
    counts = Counter(NAMES[trial.state.name] for trial in trials)
    return ", ".join(f"{counts[name]} {name}" for name in NAMES.values() if counts[name]) or "none yet"


def _best(console: Console, search: Search, trial: Any) -> None:
    """Print the best trial: its values as they are typed on a command line, and its runs."""
    metric = said(search.settings.metrics[0], trial.values[0])
    console.print(f"best: trial {trial.number}, {metric}", markup=False, style="bold")
    for text in typed(trial, {dimension.name: dimension.key for dimension in search.space}):
        console.print(f"  {text}", markup=False)
    for point in trial.user_attrs.get("points", []):
        console.print(f"  run {search.folder / point['name']}", markup=False)


def typed(trial: Any, keys: Mapping[str, str]) -> list[str]:
    """Return a trial's values as they are typed on a command line; ``keys``: name of a dimension -> its key."""
    return list(overrides({keys.get(name, name): value for name, value in trial.params.items()}).values())


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
