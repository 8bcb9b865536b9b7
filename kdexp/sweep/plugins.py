"""Hydra sweepers of kdexp's own, and the launchers they hand points to.

Both are chosen as everywhere in Hydra: ``hydra/sweeper=grid|race|optuna``, ``hydra/launcher=basic|local|submitit|ray``.
"""

from __future__ import annotations

import inspect
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from kdexp.common import contributed
from kdexp.common.registry import load
from kdexp.launch.base import Launcher

SWEEPERS = {
    "hydra_plugins.kdexp.Grid": ("kdexp.sweep.grid", "Grid"),
    "hydra_plugins.kdexp.Race": ("kdexp.sweep.race", "Race"),
    "hydra_plugins.kdexp.Optuna": ("kdexp.sweep.search.sweeper", "Optuna"),
}
"""Names that conf/hydra/sweeper/*.yaml use -> where the class is. Hydra 1.3 wants plugins to be called
``hydra_plugins.*``; they are registered under such a name, so that no package of that name has to be installed."""


class Contributed(SearchPathPlugin):
    """Lets Hydra find the choices of installed plugins, after kdexp's own."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append their folders."""
        for plugin in contributed.usable():
            if plugin.conf:
                search_path.append(f"kdexp.plugins:{plugin.name}", f"file://{plugin.conf}")


def take_names() -> None:
    """Take Hydra's own launcher ``basic`` out of this process, where it would be taken for the schema of ours.

    For the program, after :func:`register`; a process that composes other configurations too leaves it where it is.
    """
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins

    Plugins.instance()
    ConfigStore.instance().repo["hydra"]["launcher"].pop("basic.yaml", None)


def register() -> None:
    """Make kdexp's sweepers, and the choices of installed plugins, known to Hydra; call once before ``hydra.main``."""
    import importlib

    from hydra.core.plugins import Plugins

    plugins = Plugins.instance()
    plugins.register(Contributed)
    for name, (module, attribute) in SWEEPERS.items():
        cls = getattr(importlib.import_module(module), attribute)
        plugins.register(cls)
        plugins.class_name_to_class[name] = cls


def make_launcher(node: dict[str, Any]) -> Launcher:
    """Make the launcher that ``hydra.launcher`` describes.

    Raises:
        ValueError: it is neither kdexp's nor of a package in KDEXP_TARGETS, or a setting of it is unknown.
    """
    settings = dict(node)
    path = str(settings.pop("_target_", ""))
    advice = "Choose one of kdexp's, such as hydra/launcher=local."
    try:
        cls = load(path, ("kdexp.launch.",), "hydra.launcher._target_")
    except ValueError as error:
        raise ValueError(f"{error}. {advice}") from error
    if not (isinstance(cls, type) and issubclass(cls, Launcher)) or inspect.isabstract(cls):
        raise ValueError(f"hydra.launcher._target_={path} is no launcher. {advice}")
    try:
        return cls(**settings)
    except TypeError as error:
        raise ValueError(f"hydra.launcher: {path} cannot be made: {error}") from error


def experiment_sweep(arguments: list[str]) -> str | None:
    """Return why a command line that chooses several experiments cannot work, or None if it does not.

    Hydra would compose a sweep over ``experiment`` without either file, and so drop the files' own sweeps silently.
    """
    chosen = [word.partition("=")[2] for word in arguments if word.lstrip("+").startswith("experiment=")]
    if len(chosen) > 1:
        return f"experiment is said {len(chosen)} times ({', '.join(chosen)}): a command runs one experiment."
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key.lstrip("+") != "experiment":
            continue
        names = [name.strip() for name in value.split(",") if name.strip()]
        if len(names) > 1 or "(" in value:
            commands = " && ".join(f"python -m kdexp +experiment={name}" for name in names) if "(" not in value else ""
            return (
                f"{argument} sweeps over experiments, but each experiment brings a sweep of its own, which would be "
                f"lost: run them one after another{': ' + commands if commands else ''}."
            )
    return None
