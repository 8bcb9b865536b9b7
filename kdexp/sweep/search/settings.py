"""The settings of a search, and what Optuna makes of them: sampler, pruner, storage."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdexp.common.redact import bare_address
from kdexp.common.searches import JOURNAL

SAMPLERS = {
    "tpe": "TPESampler", "gp": "GPSampler", "cmaes": "CmaEsSampler", "random": "RandomSampler", "grid": "RandomSampler",
    "nsga2": "NSGAIISampler",
}  # fmt: skip
PRUNERS = {
    "none": "NopPruner", "median": "MedianPruner", "hyperband": "HyperbandPruner", "wilcoxon": "WilcoxonPruner",
    "successive_halving": "SuccessiveHalvingPruner",
}  # fmt: skip

NEEDS = {"gp": ("torch", "scipy"), "cmaes": ("cmaes",)}
"""Packages that samplers import and Optuna itself does without."""
EXTRAS = {"psycopg": "'kdexp[postgresql]'", "pymysql": "'kdexp[mysql]'", "MySQLdb": "mysqlclient"}
"""What to install for a database's driver, where that is not a package of the same name."""


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
        problems = []
        if len(self.metrics) != len(self.directions):
            problems.append(
                f"hydra.sweeper.metric has {len(self.metrics)} metrics and direction {len(self.directions)}: "
                "give as many of each."
            )
        for word in self.directions:
            if word not in ("maximize", "minimize"):
                problems.append(f"hydra.sweeper.direction={word}: choose maximize or minimize.")
        for what, value, known in (("sampler", self.sampler, SAMPLERS), ("pruner", self.pruner, PRUNERS)):
            if value not in known:
                problems.append(f"hydra.sweeper.{what}={value} is unknown; choose one of: {', '.join(known)}.")
        if not isinstance(self.n_trials, int) or self.n_trials < 1:
            problems.append(f"hydra.sweeper.n_trials={self.n_trials}: a total of at least 1.")
        if len(self.metrics) > 1 and self.pruner != "none":
            problems.append(
                f"hydra.sweeper.pruner={self.pruner} judges one metric, but there are {len(self.metrics)}: "
                "use pruner=none."
            )
        if self.pruner == "wilcoxon" and len(self.seeds) < 2:
            problems.append(
                "hydra.sweeper.pruner=wilcoxon compares seeds: give several, such as hydra.sweeper.seeds=[1,2,3,4]."
            )
        if self.pruner == "hyperband" and len(self.seeds) > 1:
            problems.append(
                "hydra.sweeper.pruner=hyperband judges one run a trial: leave hydra.sweeper.seeds empty, or use "
                "wilcoxon."
            )
        if problems := problems + missing(self.sampler, self.storage):
            raise ValueError(" ".join(problems))


def missing(chosen: str, url: str | None) -> list[str]:
    """Say which packages a sampler and a database lack, and what is wrong with the database's address."""
    problems = [
        f"hydra.sweeper.sampler={chosen} needs the package {name}: pip install {name}"
        for name in NEEDS.get(chosen, ())
        if importlib.util.find_spec(name) is None
    ]
    return problems if url is None else problems + _driver(url)


def _driver(url: str) -> list[str]:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    kind, separator, _ = url.partition("://")
    said = f"hydra.sweeper.storage={kind}{separator}{'...' if separator else ''}"  # the rest may hold a password
    try:
        make_url(url).get_dialect().import_dbapi()
    except (ArgumentError, NoSuchModuleError):
        return [
            f"{said} is no database's address: null for the study's own journal, or a URL such as "
            "sqlite:///FILE, postgresql://USER@HOST/NAME, mysql+pymysql://USER:PASSWORD@HOST/NAME."
        ]
    except ImportError as error:
        driver = str(error.name)
        wanted = EXTRAS.get(driver, driver)
        return [f"{said} needs the package {driver if '[' in wanted else wanted}: pip install {wanted}"]
    return []


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
                f"hydra.sweeper.{what}_options: {getattr(settings, what)} refuses them: {error}. "
                f"hydra.sweeper.{what}_options=null takes its own defaults."
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
    """Make the pruner; ``none`` has no options, so that it can be said over a study that sets some."""
    import optuna

    quiet()
    options = {} if settings.pruner == "none" else settings.pruner_options
    return getattr(optuna.pruners, PRUNERS[settings.pruner])(**options)


def quiet() -> None:
    """Silence what Optuna says about itself."""
    import warnings

    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def storage(settings: Settings, folder: Path) -> Any:
    """Open the storage: the study's journal, or the database that was asked for.

    Raises:
        ValueError: the database cannot be reached.
    """
    import optuna
    from sqlalchemy.exc import OperationalError

    quiet()
    url = settings.storage
    if url is None:
        return journal(folder / JOURNAL)
    waits = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    try:
        return optuna.storages.RDBStorage(url, engine_kwargs=waits)
    except OperationalError as error:
        why = str(error.orig).strip().splitlines()[0]
        raise ValueError(f"hydra.sweeper.storage={bare_address(url)} cannot be opened: {why}") from error


def journal(path: Path) -> Any:
    """Open a journal file as Optuna's storage, under a lock that the system frees when a process is killed.

    A last line that was cut short (a full disk, a machine that went down) is taken away before anything is added.
    """
    from filelock import FileLock
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    class Lock:  # what JournalFileBackend asks of a lock
        def __init__(self) -> None:
            self.lock = FileLock(path.parent / ".optuna" / "journal.lock")

        def acquire(self) -> bool:
            self.lock.acquire()
            _mend(path)
            return True

        def release(self) -> None:
            self.lock.release()

    path.parent.joinpath(".optuna").mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=Lock()))


def _mend(path: Path) -> None:
    """Take away what stands behind the last complete line."""
    with path.open("r+b") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 1))
        if file.read(1) not in (b"", b"\n"):
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
