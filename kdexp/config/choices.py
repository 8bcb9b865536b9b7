"""The choices of a group of ``conf/``: its files, without the bases that they are made from.

A file whose name begins with ``_`` is there for the ``defaults`` of other files. Hydra does not tell the two apart: it
would list ``_base`` in the help and in its errors, take it into ``task=glob(*)`` and compose ``task=_base``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any


def names(group: Path) -> list[str]:
    """Return what may be chosen of the group that a folder holds."""
    return sorted(path.stem for path in group.glob("[!_]*.yaml"))


def base(value: str) -> str | None:
    """Return the base that a choice names, also one in a list or a sweep (``rte,_base``); None if there is none."""
    found = re.search(r"(?<!\w)_\w*", value)
    return found.group() if found else None


def refused(arguments: list[str], conf: str) -> list[str]:
    """Return a sentence for every argument that chooses a base, as if there were no such choice.

    Args:
        arguments: the command line.
        conf: the configuration folder.
    """
    found = []
    for argument in arguments:
        key, _, value = argument.lstrip("+~").partition("=")
        group = Path(conf) / key.split("@")[0]
        hidden = base(value)
        if hidden and group.is_dir() and not value.startswith("{"):  # a mapping is no choice
            found.append(missing(argument, hidden, key, names(group)))
    return found


def missing(override: str, option: str, group: str, known: list[str]) -> str:
    """Return the sentence about a choice that does not exist."""
    return f"{override}: there is no {option} in {group}; choose one of: {', '.join(known)}."


def hide_bases() -> None:
    """Let Hydra list choices only: in its help, its errors, ``glob(*)`` and the shell's completion.

    For the program; a process that composes other configurations too leaves Hydra as it is.
    """
    from hydra._internal.core_plugins.file_config_source import FileConfigSource
    from hydra._internal.sources_registry import SourcesRegistry
    from hydra.core.plugins import Plugins

    class Choices(FileConfigSource):
        """Hydra's reader of configuration folders, which does not list bases."""

        def list(self, config_path: str, results_filter: Any) -> Any:
            return [name for name in super().list(config_path, results_filter) if not name.startswith("_")]

    Plugins.instance()  # registers the reader that is replaced here
    SourcesRegistry.instance().types[FileConfigSource.scheme()] = Choices
