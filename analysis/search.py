"""The search of a study for the report: its trials, the best of them, and Optuna's figures.

Read from where the sweeper keeps them (``<study>/.optuna/search.json`` names it), never written to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from kdexp.common import files

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
    from kdexp.sweep.search.optimise import NOTE, counted
    from kdexp.sweep.search.report import NAMES

    note = files.read_json(folder / NOTE)
    if note is None:
        return None
    study = _opened(folder, storage or note["storage"])
    metrics, trials = note["metrics"], counted(study.get_trials(deepcopy=False))
    counts = Counter(NAMES[trial.state.name] for trial in trials)
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

    from kdexp.sweep.search.settings import bare_address, missing, quiet

    class ReadOnly:  # a journal asks for its lock only to write
        def acquire(self) -> bool:
            raise ValueError("the report does not write into a search")

        def release(self) -> None:
            pass

    quiet()
    path = folder / "optuna.journal" if url is None else Path(url.partition("sqlite:///")[2])
    if (url is None or url.startswith("sqlite:///")) and not path.is_file():
        raise ValueError(f"the trials of {folder.name} are not there: {path} is gone. storage=URL names another place.")
    if url is None:
        return optuna.load_study(
            study_name=folder.name, storage=JournalStorage(JournalFileBackend(str(path), lock_obj=ReadOnly()))
        )
    lacking = missing("", url)
    if lacking:
        raise ValueError(" ".join(lacking))
    try:
        return optuna.load_study(study_name=folder.name, storage=RDBStorage(url, skip_table_creation=True))
    except (SQLAlchemyError, StorageInternalError, KeyError) as error:
        why = str(error.__cause__ or error).strip().splitlines()[0]
        raise ValueError(
            f"the trials of {folder.name} cannot be read from {bare_address(url)}: {why}. Where a password is needed, "
            "give storage=URL with it."
        ) from error


def _best(study: Any, note: dict[str, Any], complete: int) -> list[dict[str, Any]]:
    """The best trial, or the Pareto front by its first metric, each with its values as they are typed."""
    from kdexp.sweep.search.metrics import said
    from kdexp.sweep.search.report import typed

    if not complete:
        return []
    front = [study.best_trial] if len(note["metrics"]) == 1 else list(study.best_trials)
    front.sort(key=lambda trial: trial.values[0], reverse=note["directions"][0] == "maximize")
    return [
        {
            "number": trial.number,
            "scores": ", ".join(map(said, note["metrics"], trial.values)),
            "overrides": " ".join(typed(trial, note["space"])),
            "runs": [point["name"] for point in trial.user_attrs.get("points", [])],
        }
        for trial in front[:LISTED]
    ]


def _row(trial: Any, note: dict[str, Any]) -> list[str]:
    from kdexp.sweep.search.metrics import said
    from kdexp.sweep.search.report import NAMES

    values = trial.values if trial.state.name == "COMPLETE" else None
    scores = [said(m, v).rpartition(" ")[2] for m, v in zip(note["metrics"], values, strict=True)] if values else []
    chosen = [trial.params.get(name, "") for name in note["space"]]
    return [
        str(trial.number),
        NAMES[trial.state.name],
        *(scores or [""] * len(note["metrics"])),
        str(len(trial.intermediate_values) or ""),
        *(f"{value:.4g}" if isinstance(value, float) else str(value) for value in chosen),
    ]


def _figures(study: Any, note: dict[str, Any], inline: Callable[[Figure, int], str]) -> list[dict[str, str]]:
    from kdexp.sweep.search.report import drawings

    metrics, out = note["metrics"], []
    with matplotlib.rc_context():  # Optuna changes the style of everything that is drawn after
        for number, (name, figure) in enumerate(drawings(study, metrics, note["pruner"] != "none")):
            kind, _, end = name.partition("_")
            of = next((m for m in metrics if end and m.rpartition(".")[2] == end), " and ".join(metrics))
            out.append({"svg": inline(figure, 100 + number), "caption": CAPTIONS[kind].format(of)})
    return out
