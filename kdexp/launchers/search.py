"""One Optuna study that several processes work on: who asks for a trial, who has one, what happens to a dead one's.

Optuna's storage knows that a trial is running, not whether anybody still works on it. Here every sweeper process holds
a lock of the operating system for as long as it lives, and its trials carry that lock's name: a running trial whose
lock is free is an orphan, and the next process to ask for a trial takes it over, number, values and all.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import socket
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdexp.launchers.space import Dimension, Lookup, choose, combinations

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
            found.append(f"hydra.sweeper.metric names {len(self.metrics)} metrics and direction {len(self.directions)}: as many of each.")
        for word in self.directions:
            if word not in ("maximize", "minimize"):
                found.append(f"hydra.sweeper.direction={word}: choose maximize or minimize.")
        for what, value, known in (("sampler", self.sampler, SAMPLERS), ("pruner", self.pruner, PRUNERS)):
            if value not in known:
                found.append(f"hydra.sweeper.{what}={value} is unknown; choose one of: {', '.join(known)}.")
        if not isinstance(self.n_trials, int) or self.n_trials < 1:
            found.append(f"hydra.sweeper.n_trials={self.n_trials}: a total of at least 1.")
        if len(self.metrics) > 1 and self.pruner != "none":
            found.append(f"hydra.sweeper.pruner={self.pruner} judges one metric, but there are {len(self.metrics)}: use pruner=none.")
        if self.pruner == "wilcoxon" and len(self.seeds) < 2:
            found.append("hydra.sweeper.pruner=wilcoxon compares seeds: give several, such as hydra.sweeper.seeds=[1,2,3,4].")
        if self.pruner == "hyperband" and len(self.seeds) > 1:
            found.append("hydra.sweeper.pruner=hyperband judges one run a trial: leave hydra.sweeper.seeds empty, or use wilcoxon.")
        if self.sampler == "cmaes" and importlib.util.find_spec("cmaes") is None:
            found.append("hydra.sweeper.sampler=cmaes needs the package cmaes: pip install cmaes")
        if found:
            raise ValueError(" ".join(found))


class Search:
    """An Optuna study in a folder, opened by this process.

    Args:
        folder: ``multirun/<study>``; locks and, by default, the journal live there.
        settings: how to search.
        space: what is varied.
        lookup: what the rest of the configuration says, for conditions.

    Raises:
        ValueError: the storage cannot be used, or holds trials of another search.
    """

    def __init__(self, folder: Path, settings: Settings, space: list[Dimension], lookup: Lookup):
        from filelock import FileLock

        self.folder, self.settings, self.space, self.lookup = folder, settings, space, lookup
        self.grid = combinations(space, lookup) if settings.sampler == "grid" else None
        self.total = settings.n_trials if self.grid is None else min(settings.n_trials, len(self.grid))
        self.mine: set[int] = set()
        self.driver = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        (folder / ".optuna").mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(folder / ".optuna" / "lock")
        self._alive = FileLock(folder / ".optuna" / f"{self.driver}.lock")
        self._alive.acquire()
        try:
            with self.lock:
                self.study = self._open()
                self._check()
                self._reopen_failed()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of everything; trials that still run can be taken over."""
        self._alive.release()
        Path(self._alive.lock_file).unlink(missing_ok=True)

    def trials(self) -> list[Any]:
        """Return all trials that count (one that failed and was given another chance does not)."""
        return counted(self.study.get_trials(deepcopy=False))

    def take(self) -> tuple[Any, dict[str, Any]] | None:
        """Return a trial to work on and its values: an orphan, or a new one; None when the total is reached."""
        from optuna.trial import Trial, TrialState

        with self.lock:
            every = self.study.get_trials(deepcopy=False)
            orphan = next((t for t in every if t.state == TrialState.RUNNING and self._orphan(t)), None)
            waiting = any(t.state == TrialState.WAITING for t in every)
            if orphan is None and not waiting and len(counted(every)) >= self.total:
                return None
            self.study.sampler = self._sampler(self.settings.seed * 100_003 + len(every))
            if orphan is not None:
                trial = Trial(self.study, orphan._trial_id)
            else:
                if not waiting and self.grid is not None:
                    self._enqueue_next(every)
                trial = self.study.ask()
            trial.set_user_attr("driver", self.driver)
            self.mine.add(trial.number)
            return trial, choose(trial, self.space, self.lookup)

    def more(self) -> bool:
        """Tell whether trials may still come to this process: the total is not reached, or others are at work."""
        from optuna.trial import TrialState

        trials = self.trials()
        open_ = (TrialState.RUNNING, TrialState.WAITING)
        return len(trials) < self.total or any(t.state in open_ and t.number not in self.mine for t in trials)

    def tell(self, trial: Any, values: list[float] | None = None, pruned: bool = False) -> None:
        """End a trial: with its values, pruned, or else failed."""
        from optuna.trial import TrialState

        state = TrialState.PRUNED if pruned else TrialState.FAIL if values is None else TrialState.COMPLETE
        self.study.tell(trial, values=None if pruned else values, state=state)
        self.mine.discard(trial.number)

    def best(self) -> list[Any]:
        """Return the best trial, or the Pareto front of several metrics; empty before anything is complete."""
        from optuna.trial import TrialState

        if not self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            return []
        return [self.study.best_trial] if len(self.settings.metrics) == 1 else list(self.study.best_trials)

    def _orphan(self, trial: Any) -> bool:
        from filelock import FileLock, Timeout

        if trial.number in self.mine:
            return False
        path = self.folder / ".optuna" / f"{trial.user_attrs.get('driver')}.lock"
        if not path.exists():
            return True
        try:
            with FileLock(path, timeout=0):
                pass
        except Timeout:
            return False
        path.unlink(missing_ok=True)
        return True

    def _open(self) -> Any:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        directions = list(self.settings.directions)
        made = getattr(optuna.pruners, PRUNERS[self.settings.pruner])
        try:
            pruner = made(**self.settings.pruner_options)
            self._sampler(0)
        except TypeError as error:
            raise ValueError(f"hydra.sweeper: sampler_options or pruner_options are wrong: {error}") from error
        known = optuna.get_all_study_names(storage := self._storage())
        if self.folder.name in known:
            study = optuna.load_study(study_name=self.folder.name, storage=storage, pruner=pruner)
            have = [direction.name.lower() for direction in study.directions]
            if have != directions:
                raise ValueError(f"hydra.sweeper.direction={directions}, but study {self.folder.name} was started with {have}. {_REMEDY}")
            return study
        return optuna.create_study(storage=storage, study_name=self.folder.name, directions=directions, pruner=pruner)

    def _storage(self) -> Any:
        from optuna.storages import RDBStorage

        url = self.settings.storage
        if url is None:
            return journal(self.folder / "optuna.journal")
        if "://" not in url:
            raise ValueError(f"hydra.sweeper.storage={url}: null for the study's own journal, or a URL such as postgresql://host/name.")
        try:
            waits = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}
            return RDBStorage(url, engine_kwargs=waits)
        except ImportError as error:
            raise ValueError(f"hydra.sweeper.storage={url.partition(':')[0]}: its driver is missing ({error}).") from error

    def _sampler(self, seed: int) -> Any:
        """Make a sampler for one trial: its seed is the trial's, so processes never repeat each other."""
        import optuna

        options = dict(self.settings.sampler_options)
        if self.settings.sampler == "cmaes":
            options.setdefault("warn_independent_sampling", False)
        return getattr(optuna.samplers, SAMPLERS[self.settings.sampler])(**{"seed": seed % 2**32, **options})

    def _check(self) -> None:
        """Refuse to mix trials of another search; note what this one is."""
        from optuna.distributions import check_distribution_compatibility

        mine = {d.name: distribution(d) for d in self.space}
        for trial in self.study.get_trials(deepcopy=False):
            for name in mine.keys() & trial.distributions.keys():
                try:
                    check_distribution_compatibility(trial.distributions[name], mine[name])
                except ValueError as error:
                    text = f"hydra.sweeper.space.{name} differs from that of earlier trials: {trial.distributions[name]}"
                    raise ValueError(f"{text}. {_REMEDY}") from error
        have = self.study.user_attrs.get("metrics")
        if have is None:
            self.study.set_user_attr("metrics", list(self.settings.metrics))
            self.study.set_metric_names(list(self.settings.metrics))
        elif have != list(self.settings.metrics):
            raise ValueError(f"hydra.sweeper.metric={list(self.settings.metrics)}, but study {self.folder.name} was started with {have}. {_REMEDY}")

    def _reopen_failed(self) -> None:
        """Give failed trials another chance when more retries are asked for than they had."""
        from optuna.trial import TrialState

        for trial in self.trials():
            tried = trial.user_attrs.get("attempts", 0)
            if trial.state == TrialState.FAIL and tried <= self.settings.retries:
                self.study.enqueue_trial(trial.params, user_attrs={"attempts": tried, "again": trial.number})

    def _enqueue_next(self, every: list[Any]) -> None:
        assert self.grid is not None
        done = {t.user_attrs.get("grid") for t in every}
        index = next(n for n in range(len(self.grid)) if n not in done)
        self.study.enqueue_trial(self.grid[index], user_attrs={"grid": index})


_REMEDY = "Give the new search a name of its own (study=NAME), or go on with the old settings."


def same_science(search: Search, science: dict[str, Any]) -> None:
    """Refuse to mix trials whose fixed settings differ, for their scores cannot be compared.

    Raises:
        ValueError: they differ; the first keys are named.
    """
    with search.lock:
        have = search.study.user_attrs.get("science")
        if have is None:
            search.study.set_user_attr("science", science)
            return
    keys = {d.key for d in search.space}
    old, new = _flat(have), _flat(science)
    differ = [k for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k) and not any(k == s or k.startswith(s + ".") for s in keys)]
    if differ:
        said = ", ".join(f"{k} was {old.get(k)} and is {new.get(k)}" for k in differ[:3])
        raise ValueError(f"study {search.folder.name} holds trials of another configuration ({said}{' ...' if len(differ) > 3 else ''}). {_REMEDY}")


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping) or not value:
        return {path: value}
    return {k: v for key, inner in value.items() for k, v in _flat(inner, f"{path}.{key}" if path else str(key)).items()}


def counted(trials: list[Any]) -> list[Any]:
    """Leave out failed trials that were given another chance under a new number."""
    replaced = {t.user_attrs.get("again") for t in trials}
    return [t for t in trials if t.number not in replaced]


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


def distribution(dimension: Dimension) -> Any:
    """Return Optuna's form of a dimension."""
    from optuna import distributions

    if dimension.kind == "categorical":
        return distributions.CategoricalDistribution(list(dimension.choices))
    if dimension.kind == "int":
        return distributions.IntDistribution(int(dimension.low), int(dimension.high), dimension.log, int(dimension.step or 1))
    return distributions.FloatDistribution(dimension.low, dimension.high, dimension.log, dimension.step)


def seconds(trial: Any) -> float:
    """Return how long a trial has lasted, or lasted."""
    end = trial.datetime_complete
    return (end.timestamp() if end else time.time()) - trial.datetime_start.timestamp() if trial.datetime_start else 0.0
