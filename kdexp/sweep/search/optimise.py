"""One Optuna study that several processes work on: who asks for a trial, who has one, what happens to a dead one's.

Optuna's storage knows that a trial is running, not whether anybody still works on it. Here every sweeper process holds
a lock of the operating system for as long as it lives, and its trials carry that lock's name: a running trial whose
lock is free is an orphan, and the next process to ask for a trial takes it over, number, values and all. (The lock of
the trial's run would not do: it is free too while the run waits in a queue or between two attempts.)
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from kdexp.common import files
from kdexp.common.locks import is_locked
from kdexp.common.redact import bare_address
from kdexp.common.searches import NOTE, TYPED, counted
from kdexp.sweep.search.settings import Settings, pruner, sampler, storage
from kdexp.sweep.search.space import Dimension, Lookup, choose, combinations, overrides

REMEDY = "Give the new search a name of its own (study=NAME), or go on with the old settings."


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
                self._note()
                self._reopen_failed()
        except BaseException:
            self.close()
            raise

    def same_science(self, science: dict[str, Any]) -> None:
        """Refuse to mix trials whose fixed settings differ, for their scores cannot be compared.

        Raises:
            ValueError: they differ; the first keys are named. The search is closed.
        """
        with self.lock:
            have = self.study.user_attrs.get("science")
            if have is None:
                self.study.set_user_attr("science", science)
                return
        searched = {d.key.partition("@")[2] or d.key.replace("/", ".") for d in self.space}
        old, new = _flat(have), _flat(science)
        differ = [
            key for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key) and not any(f"{key}.".startswith(f"{s}.") for s in searched)
        ]  # fmt: skip
        if differ:
            self.close()
            text = ", ".join(f"{key} was {old.get(key)} and is {new.get(key)}" for key in differ[:3])
            more = " ..." if len(differ) > 3 else ""
            raise ValueError(f"study {self.folder.name} holds trials of another configuration ({text}{more}). {REMEDY}")

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
            self.study.sampler = sampler(self.settings, self.settings.seed * 100_003 + len(every))
            if orphan is not None:
                trial = Trial(self.study, orphan._trial_id)
            else:
                if not waiting and self.grid is not None:
                    self._enqueue_next(every)
                trial = self.study.ask()
            # The driver first: a process that is killed here leaves an orphan, whose values the next one asks for.
            trial.set_user_attr("driver", self.driver)
            self.mine.add(trial.number)
            values = choose(trial, self.space, self.lookup)
            trial.set_user_attr(TYPED, list(overrides(values).values()))
            return trial, values

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
        """Tell whether a running trial's process is gone; asked under the search's lock, so only one may take it."""
        lock = self.folder / ".optuna" / f"{trial.user_attrs.get('driver')}.lock"
        if trial.number in self.mine or is_locked(lock):
            return False
        lock.unlink(missing_ok=True)
        return True

    def _open(self) -> Any:
        import optuna

        name, directions = self.folder.name, list(self.settings.directions)
        opened = storage(self.settings, self.folder)
        if name not in optuna.get_all_study_names(opened):
            return optuna.create_study(
                storage=opened, study_name=name, directions=directions, pruner=pruner(self.settings)
            )
        study = optuna.load_study(study_name=name, storage=opened, pruner=pruner(self.settings))
        have = [direction.name.lower() for direction in study.directions]
        if have != directions:
            raise ValueError(
                f"hydra.sweeper.direction={directions}, but study {name} was started with {have}. {REMEDY}"
            )
        return study

    def _check(self) -> None:
        """Refuse to mix trials of another search; note what this one is."""
        from optuna.distributions import check_distribution_compatibility

        asked = {d.name: d.distribution() for d in self.space}
        for trial in self.study.get_trials(deepcopy=False):
            for name in asked.keys() & trial.distributions.keys():
                try:
                    check_distribution_compatibility(trial.distributions[name], asked[name])
                except ValueError as error:
                    text = (
                        f"hydra.sweeper.space.{name} differs from that of earlier trials: {trial.distributions[name]}"
                    )
                    raise ValueError(f"{text}. {REMEDY}") from error
        have = self.study.user_attrs.get("metrics")
        if have is None:
            self.study.set_user_attr("metrics", list(self.settings.metrics))
            self.study.set_metric_names(list(self.settings.metrics))
        elif have != list(self.settings.metrics):
            raise ValueError(
                f"hydra.sweeper.metric={list(self.settings.metrics)}, but study {self.folder.name} was started with "
                f"{have}. {REMEDY}"
            )

    def _note(self) -> None:
        """Write down for the report where the trials are kept, and what is searched how; no password."""
        note = {
            "storage": bare_address(self.settings.storage),
            "metrics": list(self.settings.metrics),
            "directions": list(self.settings.directions),
            "sampler": self.settings.sampler,
            "pruner": self.settings.pruner,
            "seeds": list(self.settings.seeds),
            "total": self.total,
            "space": {d.name: d.key for d in self.space},
        }
        files.write_record(self.folder / NOTE, note)

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


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping) or not value:
        return {path: value}
    return {
        k: v for key, inner in value.items() for k, v in _flat(inner, f"{path}.{key}" if path else str(key)).items()
    }
