"""The words of a command line before Hydra reads them: flags anywhere, habits from elsewhere, what would be misread."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from kdexp.common import beside
from kdexp.config import choices

CONFIG_PATH = str(beside.folder("conf"))
VALUED = (
    "--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd",
    "--experimental-rerun",
)  # fmt: skip
"""Flags of Hydra's that are followed by a value."""
INFO = ("--info", "-i")
"""Flags that may be followed by one of :data:`TOPICS`."""
TOPICS = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
HABITS = {"dry_run": "dry=true", "dry": "dry=true", "plan": "plan=show", "verbose": "runtime.log_every=1"}
"""Flags of other programs -> what is meant here."""
PLACES = ("hydra.run", "hydra.sweep", "hydra.job.name", "hydra.job.chdir", "hydra.output_subdir")
"""Settings by which Hydra would move results."""
AS_IT_IS = ("hydra.job.chdir=false", "hydra.output_subdir=null")
INSTEAD = {
    "hydra/launcher=joblib": "hydra/launcher=local hydra.launcher.slots=N, N runs at once",
    "hydra/launcher=submitit_local": "hydra/launcher=submitit hydra.launcher.executor=local",
    "hydra/launcher=submitit_slurm": "hydra/launcher=submitit",
    "hydra/launcher=ray_aws": "hydra/launcher=ray hydra.launcher.address=ray://HEAD:10001",
    "hydra/launcher=rq": "hydra/launcher=ray, or hydra/launcher=submitit",
    "hydra/sweeper=basic": "hydra/sweeper=grid, the default",
    "hydra/sweeper=ax": "hydra/sweeper=optuna",
    "hydra/sweeper=nevergrad": "hydra/sweeper=optuna",
}
"""Launchers and sweepers of Hydra's own and of its plugins -> what does the same here."""


def experiment(name: str) -> str | None:
    """Return the word that starts an experiment of ``conf/``, or None if there is none of that name."""
    return f"+experiment={name}" if name in choices.names(Path(CONFIG_PATH) / "experiment") else None


def ordered(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Split a command line into flags, with their values, and the other words, as Hydra wants them spelt.

    ``experiment=NAME`` and ``debug=NAME`` become additions (nothing is chosen before), and ``debug`` comes last: it is
    laid over everything else, an experiment too.
    """
    flags, words, left = [], [], list(arguments)
    while left:
        word = left.pop(0)
        if not word.startswith("-"):
            words.append(f"+{word}" if word.startswith(("experiment=", "debug=")) else word)
            continue
        flags.append(word)
        if left and (word in VALUED or (word in INFO and left[0] in TOPICS)):
            flags.append(left.pop(0))
        elif word in INFO:
            flags[-1] = "--info=all"  # or it would take the next word for its topic
    return flags, sorted(words, key=lambda word: word.startswith("+debug="))


def config_dir(flags: list[str]) -> str | None:
    """Return the folder that ``--config-dir`` names."""
    for number, flag in enumerate(flags):
        name, equals, value = flag.partition("=")
        if name in ("--config-dir", "-cd"):
            return value if equals else next(iter(flags[number + 1 :]), None)
    return None


def problems(flags: list[str], words: list[str]) -> list[str]:
    """Return what cannot be meant, as sentences: all that Hydra would ignore, misread, or refuse in its own words."""
    from hydra._internal.utils import get_args_parser

    known = {name for action in get_args_parser()._actions for name in action.option_strings}
    found = [_flag(flag, known) for flag in flags if flag.startswith("-") and not _is_known(flag, known)]
    return found + [sentence for word in dict.fromkeys(words) if (sentence := _word(word))]


def _is_known(flag: str, known: set[str]) -> bool:
    name = flag.partition("=")[0]
    return name in known or (name.startswith("--") and sum(other.startswith(name) for other in known) == 1)


def _flag(flag: str, known: set[str]) -> str:
    name, equals, value = flag.lstrip("-").partition("=")
    key = name.replace("-", "_")
    meant = HABITS.get(key) or (f"{key}={value}" if equals else f"{key}=...")
    long = ", ".join(sorted(option for option in known if option.startswith("--")))
    return f"{flag} is no option: settings are key=value words, such as {meant}. Options: {long}."


def _word(word: str) -> str | None:
    """Return what is wrong with one word that is no flag."""
    key, equals, value = word.lstrip("+~").partition("=")
    if not equals:
        if word.startswith("~"):
            return None
        meant = experiment(word.lstrip("+"))
        return f"{word!r} is no key=value word{f': an experiment is chosen by {meant}' if meant else ''}."
    if word in INSTEAD:
        return (
            f"{word} is Hydra's: it knows no finished runs, no shared stages, no going on where a run was stopped. "
            f"Use {INSTEAD[word]}."
        )
    if any(key == place or key.startswith(f"{place}.") for place in PLACES) and word not in AS_IT_IS:
        return (
            f"{word}: where results go is not Hydra's to say. A run's folder is multirun/STUDY/RUN below the current "
            "folder, so that the same command finds it again: choose study=NAME, or start it in another folder."
        )
    override = _parsed(word) if key else None
    if override is None:
        return _unreadable(word, key, value)
    if not word.startswith(("~", "+")) and not override.is_sweep_override():
        return _without_effect(word, key, override.value())
    return None


def _parsed(word: str) -> Any:
    """Return Hydra's reading of an override; None if it cannot be read."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        return None


def _unreadable(word: str, key: str, value: str) -> str:
    quoted = as_one_text(key, value)
    if not key or _parsed(quoted) is None:
        return f"{word} cannot be read: a setting is key=value, such as recipe.epochs=3."
    return (
        f"{word} cannot be read: signs such as = and letters such as ü have to be quoted, for Hydra and for the shell: "
        f"'{quoted}'."
    )


def as_one_text(key: str, value: str) -> str:
    """Return an override whose value is taken as it is, whatever signs it holds."""
    escaped = re.sub(r'(\\*)("|$)', lambda found: found[1] * 2 + ('\\"' if found[2] else ""), value)
    return f'{key}="{escaped}"'


def _without_effect(word: str, key: str, value: Any) -> str | None:
    """Return why a readable word does nothing, or nothing that can be meant."""
    if value == {} and isinstance(value, dict):
        return f"{word} changes nothing, since mappings are laid over one another: take a key away with ~{key}.NAME."
    group = Path(CONFIG_PATH) / key.split("@")[0]
    several = isinstance(value, list) and "/" not in key  # only what is composed of parts takes several
    if group.is_dir() and (several or not isinstance(value, str | list | dict)):
        return f"{word}: choose one of: {', '.join(choices.names(group))}."
    return None


def of_grids(words: list[str]) -> list[str]:
    """Return a sentence for each setting of a launcher or sweeper, of which a single run has none."""
    return [
        f"{word} has no effect: a single run is carried out by this process, without launcher or sweeper. Add -m for a "
        "grid (a grid of one point is one too), or leave it out."
        for word in words
        if word != "hydra/launcher=basic"  # which is what a single run does
        and word.lstrip("+~").startswith(("hydra.launcher", "hydra/launcher", "hydra.sweeper", "hydra/sweeper"))
    ]


def ambiguous(words: list[str]) -> list[str]:
    """Return a sentence for each word that lists values where one is wanted."""
    found = []
    for word in words:
        override = _parsed(word)
        if override is not None and override.is_sweep_override():
            key, _, value = word.partition("=")
            a_list = f"a list is written {key}=[{value}], " if override.is_choice_sweep() else ""
            found.append(
                f"{word} lists several values: add -m to run each of them (python -m kdexp -m ...); {a_list}a text "
                f"with commas '{as_one_text(key, value)}'."
            )
    return found
