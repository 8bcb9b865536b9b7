"""The words of a command line before Hydra reads them: flags anywhere, habits from elsewhere, what would be misread."""

from __future__ import annotations

import re
from collections.abc import Iterable
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
PLACES = ("hydra.run", "hydra.sweep", "hydra.job", "hydra.output_subdir")
"""Settings by which Hydra would move or name results."""
AS_IT_IS = {"hydra.job.chdir": False, "hydra.output_subdir": None}
"""Those that may be said, as they say what is so anyway."""
LAUNCHERS = {
    "joblib": "hydra/launcher=local hydra.launcher.slots=N, N runs at once",
    "submitit_local": "hydra/launcher=submitit hydra.launcher.executor=local",
    "submitit_slurm": "hydra/launcher=submitit, whose keys are gpus, threads (cores a run), memory_gb, timeout_min and "
    "parameters for all else, such as 'hydra.launcher.parameters={slurm_partition: gpu}'",
    "ray_aws": "hydra/launcher=ray hydra.launcher.address=ray://HEAD:10001",
    "rq": "hydra/launcher=ray, or hydra/launcher=submitit",
}
SWEEPERS = {
    "basic": "hydra/sweeper=grid, the default",
    "ax": "hydra/sweeper=optuna hydra.sweeper.sampler=gp, which is Bayesian optimisation too",
    "nevergrad": "hydra/sweeper=optuna hydra.sweeper.sampler=cmaes, which is an evolution strategy too",
    "orion": "hydra/sweeper=optuna hydra.sweeper.sampler=tpe",
}
INSTEAD = {f"hydra/launcher={name}": ours for name, ours in LAUNCHERS.items()} | {
    f"hydra/sweeper={name}": ours for name, ours in SWEEPERS.items()
}
"""Launchers and sweepers of Hydra's own and of its plugins -> what does the same here."""


def experiment(name: str, folders: Iterable[Path] = ()) -> str | None:
    """Return the word that starts an experiment, or None if there is none of that name.

    Args:
        name: what was asked for.
        folders: configuration folders beside ``conf/``, as :func:`folders` finds them.
    """
    known = [choices.names(folder / "experiment") for folder in (Path(CONFIG_PATH), *folders)]
    return f"+experiment={name}" if any(name in names for names in known) else None


def ordered(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Split a command line into flags, with their values, and the other words, as Hydra wants them spelt.

    ``experiment=NAME`` and ``debug=NAME`` become additions (nothing is chosen before), and ``debug`` comes last: it is
    laid over everything else, an experiment too.
    """
    flags, words, left = [], [], list(arguments)
    while left:
        word = left.pop(0)
        if not word.startswith("-"):
            bare = word.lstrip("+")
            words.append(f"+{bare}" if bare.startswith(("experiment=", "debug=")) else word)
            continue
        flags.append(word)
        if left and (word in VALUED or (word in INFO and left[0] in TOPICS)):
            flags.append(left.pop(0))
        elif word in INFO:
            flags[-1] = "--info=all"  # or it would take the next word for its topic
    return flags, sorted(words, key=lambda word: word.startswith("+debug="))


def valued(flags: list[str], *names: str) -> str | None:
    """Return the value of a flag, such as the folder of ``--config-dir``; '' if it has none, None if it is not there.

    Args:
        flags: the flags of a command line, as :func:`ordered` gives them.
        names: the flag's spellings.
    """
    for number, flag in enumerate(flags):
        name, equals, value = flag.partition("=")
        if name in names:
            return value if equals else next(iter(flags[number + 1 :]), "")
    return None


def config_dir(flags: list[str]) -> str | None:
    """Return the folder that ``--config-dir`` names."""
    return valued(flags, "--config-dir", "-cd") or None


def folders(flags: list[str], words: list[str]) -> tuple[list[Path], list[str]]:
    """Return the configuration folders that a command line adds to ``conf/``, and what is wrong with them.

    A file that has the place of one of kdexp's own would never be read, as Hydra looks into ``conf/`` first.
    """
    named, problems = _named_folders(flags, words)
    found = []
    for said, folder in named:
        if not folder.is_dir():
            problems.append(f"{said}: there is no folder {folder} (a relative one counts from the current folder).")
            continue
        found.append(folder)
        known = sorted(path.relative_to(CONFIG_PATH) for path in Path(CONFIG_PATH).glob("*/**/*.yaml"))
        hidden = [path for path in known if _differ(folder / path, Path(CONFIG_PATH) / path)]
        if hidden:
            more = f" and {len(hidden) - 3} more" if len(hidden) > 3 else ""
            problems.append(
                f"{said}: {', '.join(map(str, hidden[:3]))}{more} would never be read, since kdexp has a file of that "
                "name: call yours otherwise."
            )
    return found, problems


def _named_folders(flags: list[str], words: list[str]) -> tuple[list[tuple[str, Path]], list[str]]:
    """Each folder with the word that names it, and what is wrong with the words."""
    named, problems = [], []
    more = valued(flags, "--config-dir", "-cd")
    if more == "":
        problems.append("--config-dir needs a folder.")
    elif more is not None:
        named.append((f"--config-dir {more}", Path(more).resolve()))
    for word in words:
        if word.lstrip("+").partition("=")[0] != "hydra.searchpath":
            continue
        override = _parsed(word)
        value = None if override is None else override.value()
        if not isinstance(value, list):
            problems.append(f"{word}: it is a list of folders, such as 'hydra.searchpath=[./lab]'.")
            continue
        places = [str(place) for place in value if not str(place).startswith("pkg://")]
        named += [(word, Path(place.removeprefix("file://")).resolve()) for place in places]
    return named, problems


def _differ(one: Path, other: Path) -> bool:
    """Whether a file is there and says something else than another."""
    return one.is_file() and one.read_bytes() != other.read_bytes()


def problems(flags: list[str], words: list[str]) -> list[str]:
    """Return what cannot be meant, as sentences: all that Hydra would ignore, misread, or refuse in its own words."""
    from hydra._internal.utils import get_args_parser

    known = {name for action in get_args_parser()._actions for name in action.option_strings}
    found = [_flag(flag, known) for flag in flags if flag.startswith("-") and not _is_known(flag, known)]
    further, wrong = folders(flags, words)
    found += _of_hydra(flags, further) + wrong
    return found + [sentence for word in dict.fromkeys(words) if (sentence := _word(word, further))]


def _of_hydra(flags: list[str], further: list[Path]) -> list[str]:
    """Say what flags of Hydra's would do no good here."""
    found = []
    if "--hydra-help" in flags:
        found.append("--hydra-help is about programs that Hydra lays out: --help and --cfg hydra tell what is so here.")
    place = valued(flags, "--config-path", "-cp")
    if place is not None:
        found.append(
            f"--config-path {place} would replace kdexp's own configuration with all its choices: --config-dir {place} "
            "adds yours to it."
        )
    name = (valued(flags, "--config-name", "-cn") or "config").removesuffix(".yaml")
    if not any((folder / f"{name}.yaml").is_file() for folder in (Path(CONFIG_PATH), *further)):
        meant = experiment(name, further)
        found.append(
            f"--config-name {name}: there is no {name}.yaml in a configuration folder"
            f"{f'; an experiment is chosen by {meant}' if meant else ''}."
        )
    return found


def _is_known(flag: str, known: set[str]) -> bool:
    name = flag.partition("=")[0]
    return name in known or (name.startswith("--") and sum(other.startswith(name) for other in known) == 1)


def _flag(flag: str, known: set[str]) -> str:
    name, equals, value = flag.lstrip("-").partition("=")
    key = name.replace("-", "_")
    meant = HABITS.get(key) or (f"{key}={value}" if equals else f"{key}=...")
    long = ", ".join(sorted(option for option in known if option.startswith("--")))
    return f"{flag} is no option: settings are key=value words, such as {meant}. Options: {long}."


def _word(word: str, further: list[Path]) -> str | None:
    """Return what is wrong with one word that is no flag."""
    key, equals, value = word.lstrip("+~").partition("=")
    if not equals:
        if word.startswith("~"):
            return None
        meant = experiment(word.lstrip("+"), further)
        return f"{word!r} is no key=value word{f': an experiment is chosen by {meant}' if meant else ''}."
    if f"{key}={value}" in INSTEAD:
        return (
            f"{word} is Hydra's: it knows no finished runs, no shared stages, no going on where a run was stopped. "
            f"Use {INSTEAD[f'{key}={value}']}."
        )
    if key.startswith("hydra/sweeper/"):
        return f"{word} is of Hydra's own Optuna sweeper; here it is {key.replace('/', '.')}={value}."
    override = _parsed(word) if key else None
    if any(key == place or key.startswith(f"{place}.") for place in PLACES):
        return None if override and _as_it_is(key, override.value()) else _moved(word, key)
    if override is None:
        return _unreadable(word, key, value)
    if not word.startswith(("~", "+")) and not override.is_sweep_override():
        return _without_effect(word, key, override.value())
    return None


def _as_it_is(key: str, value: Any) -> bool:
    return key in AS_IT_IS and value is AS_IT_IS[key]


def _moved(word: str, key: str) -> str:
    """Return why Hydra's folders and names are not to be chosen."""
    if key == "hydra.job.chdir":
        return (
            f"{word}: kdexp stays in the folder where it is started; paths count from there, and several runs may "
            "share a process. Leave it out."
        )
    if key.startswith("hydra.job"):
        return f"{word} has no effect: kdexp names runs and sets their processes up itself. Choose study=NAME."
    return (
        f"{word}: where results go is not Hydra's to say. A run's folder is multirun/STUDY/RUN below the current "
        "folder, so that the same command finds it again: choose study=NAME, or start it in another folder."
    )


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
        if override is None or not override.is_sweep_override():
            continue
        key, _, value = word.partition("=")
        sentence = f"{word} lists several values: add -m to run each of them (python -m kdexp -m ...)"
        if not (Path(CONFIG_PATH) / key.lstrip("+").split("@")[0]).is_dir():  # of a group, one is chosen
            sentence += f"; a list is written {key}=[{value}]" if override.is_choice_sweep() else ""
            sentence += f"; a text with commas '{as_one_text(key, value)}'"
        found.append(f"{sentence}.")
    return found
