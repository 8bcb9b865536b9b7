"""The settings of a search, and what Optuna makes of them: sampler, pruner, storage."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SAMPLERS = {
    "tpe": "TPESampler", "gp": "GPSampler", "cmaes": "CmaEsSampler", "random": "RandomSampler", "grid": "RandomSampler",
    "nsga2": "NSGAIISampler",
}  # fmt: skip
PRUNERS = {
    "none": "NopPruner", "median": "MedianPruner", "hyperband": "HyperbandPruner", "wilcoxon": "WilcoxonPruner",
    "successive_halving": "SuccessiveHalvingPruner",
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """How to search; see conf/hydra/sweeper/optuna.yaml for each."""

    metrics: tuple[str, ...] = ("score",)
    directions: tuple[str, ...] = ("maximize",)
    n_trials: int = 20
    seeds: tuple[int, ...] = ()
    sampler: str = "tpe"
    sampler_options: Mapping[str, Any] = field(default_factory=dict)
    pruner: str = "none"
    pruner_options: Mapping[str, Any] = field(default_factory=dict)
    retries: int = 1
    seed: int = 1
    storage: str | None = None

    def __post_init__(self) -> None:
        found = []
        if len(self.metrics) != len(self.directions):
            found.append(
                f"hydra.sweeper.metric has {len(self.metrics)} metrics and direction {len(self.directions)}: "
                "give as many of each."
            )
        for word in self.directions:
            if word not in ("maximize", "minimize"):
                found.append(f"hydra.sweeper.direction={word}: choose maximize or minimize.")
        for what, value, known in (("sampler", self.sampler, SAMPLERS), ("pruner", self.pruner, PRUNERS)):
            if value not in known:
                found.append(f"hydra.sweeper.{what}={value} is unknown; choose one of: {', '.join(known)}.")
        if not isinstance(self.n_trials, int) or self.n_trials < 1:
            found.append(f"hydra.sweeper.n_trials={self.n_trials}: a total of at least 1.")
        if len(self.metrics) > 1 and self.pruner != "none":
            found.append(
                f"hydra.sweeper.pruner={self.pruner} judges one metric, but there are {len(self.metrics)}: "
                "use pruner=none."
            )
        if self.pruner == "wilcoxon" and len(self.seeds) < 2:
            found.append(
                "hydra.sweeper.pruner=wilcoxon compares seeds: give several, such as hydra.sweeper.seeds=[1,2,3,4]."
            )
        if self.pruner == "hyperband" and len(self.seeds) > 1:
            found.append(
                "hydra.sweeper.pruner=hyperband judges one run a trial: leave hydra.sweeper.seeds empty, or use "
                "wilcoxon."
            )
        if self.sampler == "cmaes" and importlib.util.find_spec("cmaes") is None:
            found.append("hydra.sweeper.sampler=cmaes needs the package cmaes: pip install cmaes")
        if found:
            raise ValueError(" ".join(found))


def several(value: Any) -> tuple[Any, ...]:
    """Return a list's values, one value alone, or nothing."""
    return tuple(value) if isinstance(value, list | tuple) else () if value is None else (value,)


def read(form: Mapping[str, Any]) -> Settings:
    """Return the settings of ``hydra.sweeper``; sampler and pruner have been made once, so they work.

    Raises:
        ValueError: they cannot work.
    """
    plain = ("n_trials", "sampler", "pruner", "retries", "seed", "storage")
    settings = Settings(
        metrics=several(form.get("metric", "score")),
        directions=several(form.get("direction", "maximize")),
        seeds=several(form.get("seeds")),
        sampler_options=dict(form.get("sampler_options") or {}),
        pruner_options=dict(form.get("pruner_options") or {}),
        **{key: form[key] for key in plain if key in form},
    )
    for what, make in (("sampler", lambda: sampler(settings, 0)), ("pruner", lambda: pruner(settings))):
        try:
            make()
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"hydra.sweeper.{what}_options: {getattr(settings, what)} refuses them: {error}"
            ) from error
    return settings


def sampler(settings: Settings, seed: int) -> Any:
    """Make a sampler for one trial: its seed is the trial's own, so that processes never repeat each other."""
    import optuna

    quiet()
    options = dict(settings.sampler_options)
    if settings.sampler == "cmaes":
        options.setdefault("warn_independent_sampling", False)
    return getattr(optuna.samplers, SAMPLERS[settings.sampler])(**{"seed": seed % 2**32, **options})


def pruner(settings: Settings) -> Any:
    """Make the pruner."""
    import optuna

    quiet()
    return getattr(optuna.pruners, PRUNERS[settings.pruner])(**settings.pruner_options)


def quiet() -> None:
    """Silence what Optuna says about itself."""
    import warnings

    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def storage(settings: Settings, folder: Path) -> Any:
    """Open the storage: the study's journal, or the database that was asked for.

    Raises:
        ValueError: it is no URL, or its driver is not installed.
    """
    from optuna.storages import RDBStorage

    url = settings.storage
    if url is None:
        return journal(folder / "optuna.journal")
    if "://" not in url:
        raise ValueError(
            f"hydra.sweeper.storage={url}: null for the study's own journal, or a URL such as postgresql://host/name."
        )
    try:
        waits = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}
        return RDBStorage(url, engine_kwargs=waits)
    except ImportError as error:
        kind = url.partition(":")[0]
        raise ValueError(f"hydra.sweeper.storage={kind}://...: its driver is not installed ({error}).") from error


def journal(path: Path) -> Any:
    """Open a journal file as Optuna's storage, under a lock that the system frees when a process is killed."""
    from filelock import FileLock
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    class Lock:  # what JournalFileBackend asks of a lock
        def __init__(self) -> None:
            self.lock = FileLock(path.parent / ".optuna" / "journal.lock")

        def acquire(self) -> bool:
            self.lock.acquire()
            return True

        def release(self) -> None:
            self.lock.release()

    path.parent.joinpath(".optuna").mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=Lock()))
