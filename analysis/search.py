"""The search of a study: its trials, the best of them, what mattered, and Optuna's figures.

Read from where the sweeper keeps them (``<study>/.optuna/search.json`` names it), never written to. For the report, and
``kdexp search STUDY [figures=true] [storage=URL]``, which prints each setting's importance and draws the figures into
``multirun/STUDY/figures``; ``storage=-`` reads the address from standard input.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

from kdexp.common import searches, sqlite
from kdexp.common.arguments import truth
from kdexp.common.redact import bare_address
from kdexp.common.searches import FIGURES, JOURNAL, NOTE, STATES, counted, said, typed

from . import cli
from .figures import drawn

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LISTED = 500  # trials in the table; more would make the page slow on a phone
CAPTIONS = {
    "history": "Each complete trial's {}, and the best so far.",
    "parallel": "Parallel coordinates: a line is a complete trial, its colour its {}.",
    "importances": "What sets the tenth of the trials apart that is best in {}: shares of the settings (PED-ANOVA).",
    "intermediate": "Evaluations of {} while trials lasted: what the pruner saw.",
    "pareto": "Trials by {}; the front is what no other trial beats in everything.",
}


def section(folder: Path, inline: Callable[[Figure, int], str], storage: str = "") -> dict[str, Any] | None:
    """Return what the report says of a study's search; None if the study has none.

    Args:
        folder: the study's.
        inline: turns a figure and a number of its own into SVG.
        storage: the database, where its address needs a password; empty = what the study's folder names.

    Raises:
        ValueError: the trials cannot be read.
    """
    note = searches.note(folder)
    if note is None:
        return None
    study = _opened(folder, storage or note["storage"])
    metrics, trials = note["metrics"], counted(study.get_trials(deepcopy=False))
    counts = Counter(STATES[trial.state.name] for trial in trials)
    states = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    aims = ", ".join(f"{way} {metric}" for way, metric in zip(note["directions"], metrics, strict=True))
    seeds = f"; seeds {', '.join(map(str, note['seeds']))} each" if note["seeds"] else ""
    return {
        "said": f"{len(trials)} of {note['total']} trials ({states}): {aims}; sampler {note['sampler']}, pruner "
        f"{note['pruner']}{seeds}.",
        "best": _best(study, note, counts["complete"]),
        "several": len(metrics) > 1,
        "head": ["trial", "state", *metrics, "evaluations", *note["space"]],
        "trials": [_row(trial, note) for trial in trials[:LISTED]],
        "hidden": max(0, len(trials) - LISTED),
        "figures": _figures(study, note, inline),
    }


def _opened(folder: Path, url: str | None) -> Any:
    """Open the Optuna study to read it."""
    import optuna
    from optuna.exceptions import StorageInternalError
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend
    from sqlalchemy.exc import SQLAlchemyError

    class ReadOnly:  # a journal asks for its lock only to write
        def acquire(self) -> bool:
            raise ValueError("the report does not write into a search")

        def release(self) -> None:
            pass

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = folder / JOURNAL if url is None else sqlite.path_of(url)
    if path is not None and not path.is_file():
        raise ValueError(f"the trials of {folder.name} are not there: {path} is gone. storage=URL names another place.")
    if url is None:
        return optuna.load_study(
            study_name=folder.name, storage=JournalStorage(JournalFileBackend(str(path), lock_obj=ReadOnly()))
        )
    try:
        return optuna.load_study(study_name=folder.name, storage=RDBStorage(url, skip_table_creation=True))
    except (SQLAlchemyError, StorageInternalError, ImportError, KeyError) as error:
        why = str(error.__cause__ or error).strip().splitlines()[0]
        raise ValueError(
            f"the trials of {folder.name} cannot be read from {bare_address(url)}: {why}. Where a password is needed, "
            "give storage=URL with it."
        ) from error


def _best(study: Any, note: dict[str, Any], complete: int) -> list[dict[str, Any]]:
    """The best trial, or the Pareto front by its first metric, each with its values as they are typed."""
    if not complete:
        return []
    front = [study.best_trial] if len(note["metrics"]) == 1 else list(study.best_trials)
    front.sort(key=lambda trial: trial.values[0], reverse=note["directions"][0] == "maximize")
    return [
        {
            "number": trial.number,
            "scores": ", ".join(map(said, note["metrics"], trial.values)),
            "overrides": " ".join(typed(trial)),
            "runs": [point["name"] for point in trial.user_attrs.get("points", [])],
        }
        for trial in front[:LISTED]
    ]


def _row(trial: Any, note: dict[str, Any]) -> list[str]:
    values = trial.values if trial.state.name == "COMPLETE" else None
    scores = [said(m, v).rpartition(" ")[2] for m, v in zip(note["metrics"], values, strict=True)] if values else []
    chosen = [trial.params.get(name, "") for name in note["space"]]
    return [
        str(trial.number),
        STATES[trial.state.name],
        *(scores or [""] * len(note["metrics"])),
        str(len(trial.intermediate_values) or ""),
        *(f"{value:.4g}" if isinstance(value, float) else str(value) for value in chosen),
    ]


def _figures(study: Any, note: dict[str, Any], inline: Callable[[Figure, int], str]) -> list[dict[str, str]]:
    metrics, out = note["metrics"], []
    with matplotlib.rc_context():  # Optuna changes the style of everything that is drawn after
        for number, (name, figure) in enumerate(drawings(study, metrics, note["pruner"] != "none")):
            kind, _, end = name.partition("_")
            of = next((m for m in metrics if end and m.rpartition(".")[2] == end), " and ".join(metrics))
            out.append({"svg": inline(figure, 100 + number), "caption": CAPTIONS[kind].format(of)})
    return out


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
        trial.distributions = {drawn(short.get(name, name)): _drawn(kind) for name, kind in trial.distributions.items()}
        trial.params = {
            drawn(short[name]): drawn(value) if isinstance(value, str) else value
            for name, value in trial.params.items()
        }
        copied.add_trial(trial)
    return copied


def _drawn(kind: Any) -> Any:
    """The values that a dimension may have, as figures write them; numbers stay."""
    choices = getattr(kind, "choices", None)
    if choices is None:
        return kind
    return type(kind)([drawn(value) if isinstance(value, str) else value for value in choices])


def _complete(study: Any) -> list[Any]:
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]


PURPOSE = "What mattered in a search, and its figures."
KEYS = {
    "study": cli.Key("name of the study", "", kind=lambda text: cli.STUDY.kind(text) if text else "", bare=True),
    "root": cli.COMMON["root"],
    "folder": cli.Key("the study's folder, instead of its name and root", ""),
    "figures": cli.Key("draw figures into its folder figures/", "true", ("true", "false", "yes", "no"), truth),
    "storage": cli.Key("the database, where its address needs a password; - reads it from standard input", ""),
}


def run(options: dict[str, Any]) -> cli.Answer:
    """Say what mattered in a search and draw it.

    Raises:
        ValueError: no study is named, or it has no search.
    """
    if bool(options["study"]) == bool(options["folder"]):
        raise ValueError("name a study, or give its folder with folder=multirun/STUDY: one of the two")
    folder, storage = Path(options["folder"] or Path(options["root"], options["study"])), options["storage"]
    note = searches.note(folder)
    if note is None:
        raise ValueError(f"{folder} holds no search: {folder / NOTE} is missing.")
    study = _opened(folder, (sys.stdin.read().strip() if storage == "-" else storage) or note["storage"])
    importance = {}
    for index, metric in enumerate(note["metrics"]):
        importance[metric] = shares(study, index) if len(note["space"]) > 1 else {}
    drawn_files = []
    if options["figures"]:
        for name, figure in drawings(study, note["metrics"], note["pruner"] != "none"):
            drawn_files.append(folder / FIGURES / f"{name}.png")
            drawn_files[-1].parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(drawn_files[-1], dpi=120, bbox_inches="tight")
    lines = [
        f"importance for {metric}: {', '.join(f'{name} {share:.0%}' for name, share in found.items())}"
        for metric, found in importance.items()
        if found
    ]
    return cli.Answer("\n".join(lines), {"folder": folder, "importance": importance, "figures": drawn_files})


VERB = cli.verb(PURPOSE, KEYS, run)


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out the verb."""
    return cli.main("search", VERB, arguments)


if __name__ == "__main__":
    sys.exit(main())
