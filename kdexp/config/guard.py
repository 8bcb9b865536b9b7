"""What a configuration file cannot decide: whose code runs, whom to trust, which secrets leave. ``SECURITY.md``.

A file outside kdexp's own ``conf/`` (an experiment, anything below ``--config-dir`` or ``hydra.searchpath``) may come
from a stranger. It says what is computed; where results go and whose word is taken is said by the person at the command
line or by the environment. Every file is judged where Hydra reads it, with the place in the configuration that its
content takes, and every composition before Hydra makes an object of it. Refusals are
:class:`~kdexp.common.problems.ConfigError`: one message, exit code 2, nothing imported, nothing written.

Classes that a ``_target_`` names elsewhere are judged by :mod:`kdexp.common.registry`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kdexp.common.registry import allowed_packages

ENVIRONMENT = ("HOME", "MLFLOW_TRACKING_URI", "SCRATCH", "TMPDIR", "USER", "WORK")
"""Variables of the environment that a configuration may read, beside all that begin with ``KDEXP_``."""

REFERENCE = re.compile(r"\$\{([\w.\[\]-]+|kdexp\.(?:per_task|debug):[^${}]*|oc\.env:(\w+)(?:,[^${}]*)?)\}")
"""Interpolations that may be written: another value, a recipe's table by task, a variable (group 2)."""
MAKING = ("_target_", "_args_", "_partial_", "_recursive_")
"""Keys by which Hydra makes objects."""
SETTABLE = ("sweeper", "launcher", "mode")
"""Keys of ``hydra`` that a file may set."""
QUIET = {"version": 1, "root": None, "disable_existing_loggers": False}
"""Hydra's logging: none."""


# --- places: where results go, whom a run trusts ---------------------------------------------------------------------


def _inside(value: Any, folder: str) -> bool:
    path = Path(str(value))
    return not path.is_absolute() and ".." not in path.parts and path.parts[:1] == (folder,)


def _local_database(value: Any) -> bool:
    return str(value).startswith("sqlite:///") and _inside(str(value).removeprefix("sqlite:///"), "multirun")


def _loopback(value: Any) -> bool:
    try:
        host = urlsplit(str(value)).hostname
    except ValueError:
        return False
    return host in ("127.0.0.1", "localhost", "::1")


def _nowhere(value: Any) -> bool:
    return False


PLACES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "runtime.store": (
        lambda value: _inside(value, "multirun"),
        "a folder below multirun/, or ${oc.env:KDEXP_STORE,...}",
    ),
    "runtime.remote": (_nowhere, "null"),
    "tracking.uri": (
        lambda value: _loopback(value) or _local_database(value),
        "null, an address of this machine, or ${oc.env:MLFLOW_TRACKING_URI}",
    ),
    "hydra.sweeper.storage": (
        _local_database,
        "null, sqlite:///multirun/..., or a variable such as ${oc.env:KDEXP_DB}",
    ),
    "hydra.sweeper.most_points": (_nowhere, "null"),
    "hydra.launcher.address": (lambda value: value == "auto", "null or auto"),
    "hydra.launcher.workdir": (_nowhere, "null"),
}
"""Keys that say where things go, whom to trust, how much is too much -> what a file may write, as a test and in words.

A store holds compiled code that is loaded, a Ray cluster sends objects that are unpickled, and a tracking server or a
database is told the passwords that the environment holds for it.
"""
SLURM = re.compile(r"slurm_(account|partition|qos|constraint|time|comment|mail_type|mail_user|array_parallelism)")
"""Parameters of submitit that hold no command."""


def _place_problems(key: str, value: Any) -> list[str]:
    fits, words = PLACES[key]
    if value is None or fits(value):
        return []
    variable = re.fullmatch(r"\$\{oc\.env:(\w+)(?:,([^${}]*))?\}", str(value))
    default = None if variable is None or variable[2] in (None, "null") else variable[2]
    if variable and readable(variable[1]) and (default is None or fits(default)):
        return []
    why = "as it decides whom a run trusts, or how much it takes"
    return [f"{key}={value} is for the command line to say, {why}: a file may write {words}."]


# --- a file ----------------------------------------------------------------------------------------------------------


def judged(content: Mapping[str, Any]) -> list[str]:
    """Say what a file sets that is not a file's to set.

    Args:
        content: what it adds to the configuration, in its place there, interpolations as they are written.
    """
    problems = [problem for text in texts(content) for problem in reference_problems(text)]
    for group in ("hydra", "runtime", "tracking"):
        if group in content and not isinstance(content[group], Mapping | None):
            return [*problems, f"{group}={content[group]!r}: a file must write its settings out."]
    hydra = content.get("hydra") or {}
    for key in hydra:
        if key not in SETTABLE:
            problems.append(
                f"hydra.{key} is kdexp's own: of hydra, a file sets {', '.join(SETTABLE)} only. Leave it out."
            )
    for part in ("sweeper", "launcher"):
        if part in hydra and not isinstance(hydra[part], Mapping | None):
            return [*problems, f"hydra.{part}={hydra[part]!r}: a file must write its settings out."]
    problems += [problem for key in PLACES for problem in _place_problems(key, _looked_up(content, key))]
    problems += _slurm_problems((hydra.get("launcher") or {}).get("parameters"))
    return list(dict.fromkeys(problems + _form_problems(hydra.get("sweeper") or {})))


def _form_problems(form: Any) -> list[str]:
    """Say which keys of a grid or a search are not a file's to set; they become words like those of a command line."""
    problems = []
    for key, value in _pairs(form):
        name = key.lstrip("+~").partition("@")[0]
        group = name.partition(".")[0]
        whole = name in ("runtime", "tracking") and re.search(r"[{$]", str(value))
        if group == "hydra" or name in PLACES or whole:
            problems.append(f"hydra.sweeper sets {key}, which is for the command line to say: leave it out.")
    return problems


def _slurm_problems(parameters: Any) -> list[str]:
    if parameters is None:
        return []
    if not isinstance(parameters, Mapping):
        return [f"hydra.launcher.parameters={parameters!r}: a file must write them out."]
    return [
        f"hydra.launcher.parameters.{key}={value!r} is for the command line to say, as it may hold commands."
        for key, value in parameters.items()
        if not SLURM.fullmatch(str(key)) or not re.fullmatch(r"[\w@.,:+-]*", str(value))
    ]


def _looked_up(content: Mapping[str, Any], key: str) -> Any:
    node: Any = content
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def _pairs(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at any depth."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield str(key), inner
            yield from _pairs(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _pairs(inner)


def texts(value: Any) -> Iterator[str]:
    """Every text, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from texts(str(key))
            yield from texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts(inner)


def readable(variable: str) -> bool:
    """Whether a configuration may read a variable of the environment."""
    return variable in ENVIRONMENT or variable.startswith("KDEXP_")


def reference_problems(text: str) -> list[str]:
    """Say what is wrong with a text's interpolations."""
    problems = [unreadable(found[2]) for found in REFERENCE.finditer(text) if found[2] and not readable(found[2])]
    if "${" in REFERENCE.sub("", text):
        shown = text if len(text) <= 100 else f"{text[:100]}..."
        problems.append(
            f"{shown!r}: a configuration refers to other values (${{task.name}}) and to the environment "
            "(${oc.env:KDEXP_DATA}), to nothing else."
        )
    return problems


def unreadable(variable: str) -> str:
    """Return the sentence about a variable that it may not read."""
    return (
        f"${{oc.env:{variable}}}: a configuration may read {', '.join(ENVIRONMENT)} and what begins with KDEXP_ of the "
        "environment, so that no secret gets into names and records."
    )


# --- a composition ---------------------------------------------------------------------------------------------------


def composed_problems(hydra: Mapping[str, Any], own: Mapping[str, Any], sweepers: Iterable[str]) -> list[str]:
    """Say what a composition would have Hydra make, write or set that kdexp does not know.

    Args:
        hydra: the node ``hydra``, interpolations as they are written.
        own: what ``conf/config.yaml`` has there.
        sweepers: the names of kdexp's sweepers.
    """
    job = hydra.get("job") or {}
    found = {**hydra, "job": {key: job.get(key) for key in own["job"]}}  # Hydra writes into it too
    problems = [
        f"hydra.{key} is kdexp's own (it lays out folders, logs and checks): leave it as it is."
        for key, value in {**own, "job_logging": QUIET, "hydra_logging": QUIET}.items()
        if found.get(key) != value
    ]
    problems += [
        f"hydra.job.{key}={job[key]!r}: a configuration does not change the environment; set variables in your shell."
        for key in ("env_set", "env_copy")
        if job.get(key)
    ]
    chosen = {part: hydra.get(part) for part in ("sweeper", "launcher")}
    for part, node in chosen.items():
        if not isinstance(node, Mapping):
            continue
        inner = [key for value in node.values() for key, _ in _pairs(value) if key in MAKING]
        inner += [key for key in MAKING[1:] if key in node]
        problems += [f"hydra.{part} holds {key}: it is made of plain values." for key in dict.fromkeys(inner)]
    sweeper, launcher = (_target(chosen[part]) for part in ("sweeper", "launcher"))
    if sweeper is not None and sweeper not in sweepers:
        problems.append(f"hydra.sweeper._target_={sweeper} is no sweeper of kdexp: choose one with hydra/sweeper=...")
    if launcher is not None and not launcher.startswith(("kdexp.launch.", *allowed_packages())):
        problems.append(
            f"hydra.launcher._target_={launcher} is not allowed: choose one of kdexp's, such as hydra/launcher=local, "
            "or allow a package of your own with the environment variable KDEXP_TARGETS."
        )
    return problems


def _target(node: Any) -> str | None:
    return str(node["_target_"]) if isinstance(node, Mapping) and "_target_" in node else None
