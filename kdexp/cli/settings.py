"""Settings of a choice of ``conf/``, for verbs, which have no composed configuration."""

from __future__ import annotations

import warnings
from typing import Any

from kdexp.cli import offer
from kdexp.cli.words import CONFIG_PATH
from kdexp.common.problems import near
from kdexp.sweep import plugins


def task(name: str, own: dict[str, Any] | None) -> dict[str, Any]:
    """Return the settings of the task that is meant: a run's own, or those of a choice of ``conf/task``.

    Args:
        name: what was asked for; '' = the run's own.
        own: the settings of a run's task; None = there is no run.

    Raises:
        ValueError: there is none of that name.
    """
    if own is not None and name in ("", own["name"]):
        return own
    known = list(offer.described("task"))
    if name not in known:
        said = f"task={name} is unknown.{near(name, known)}" if name else "task= is needed, as the model is no run."
        raise ValueError(f"{said} Choose one of: {', '.join(known)}")
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    plugins.register()
    with warnings.catch_warnings(), initialize_config_dir(CONFIG_PATH, version_base="1.3"):
        warnings.simplefilter("ignore")  # of Hydra, about kdexp's launchers, which are not asked here
        settings = OmegaConf.to_container(compose(f"task/{name}").task, resolve=True)
    assert isinstance(settings, dict)
    return {str(key): value for key, value in settings.items()}
