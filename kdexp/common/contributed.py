"""What installed packages bring to kdexp: choices of ``conf/``, and the classes that they name.

A package says so with an entry point of the group ``kdexp.plugins``, whose value is the package::

    [project.entry-points."kdexp.plugins"]
    mylab = "mylab_kd"

Its folder ``conf/`` is searched after kdexp's own, and ``_target_`` may name what lies in the package. To have
installed it is to trust it; until one of its choices is made, nothing of it is imported. ``docs/extending.md``.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdexp.common import beside

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "kdexp.plugins"


@dataclass(frozen=True)
class Plugin:
    """A package that brings choices.

    Attributes:
        name: as its entry point calls it.
        package: what ``_target_`` may name the content of.
        distribution: what is installed, and its version.
        folder: where the package lies; None: nowhere.
        wrong: why it cannot be used; empty: nothing.
    """

    name: str
    package: str
    distribution: str
    version: str
    folder: Path | None
    wrong: str = ""

    @property
    def conf(self) -> Path | None:
        """Its folder of choices, if it has one."""
        folder = None if self.folder is None else self.folder / "conf"
        return folder if folder is not None and folder.is_dir() else None

    @property
    def choices(self) -> dict[str, list[str]]:
        """Group -> the names of what it offers there, without bases."""
        found: dict[str, list[str]] = {}
        for path in sorted(self.conf.rglob("[!_]*.yaml")) if self.conf else []:
            found.setdefault(path.parent.relative_to(self.conf or path).as_posix(), []).append(path.stem)
        return found


@cache
def plugins() -> tuple[Plugin, ...]:
    """Return what is installed, by name; read once a process."""
    return tuple(sorted(map(_plugin, beside.offers(GROUP)), key=lambda plugin: plugin.name))


def usable() -> list[Plugin]:
    """Return the plugins that can be used."""
    return [plugin for plugin in plugins() if not plugin.wrong]


def problems() -> list[str]:
    """Return a sentence for each plugin that cannot be used, and for each choice that exists already."""
    said = [
        f"{plugin.distribution} {plugin.version} offers {plugin.package!r} as a plugin of kdexp ({plugin.name}), which "
        f"{plugin.wrong}: correct or uninstall it."
        for plugin in plugins()
        if plugin.wrong
    ]
    brought = [(plugin.distribution, plugin.conf) for plugin in usable() if plugin.conf]
    return said + (_twins([("kdexp", beside.folder("conf")), *brought]) if brought else [])


def _twins(places: Iterable[tuple[str, Path]]) -> list[str]:
    """Say which choices two packages offer: one of them would be taken, and the other without effect."""
    offered: dict[str, list[str]] = defaultdict(list)
    for name, folder in places:
        for path in folder.rglob("*.yaml"):
            offered[path.relative_to(folder).as_posix()].append(name)
    return [
        f"conf/{path} is offered by {' and by '.join(names)}: rename all but one, or uninstall the plugin."
        for path, names in sorted(offered.items())
        if len(names) > 1
    ]


def _plugin(entry: EntryPoint) -> Plugin:
    """Look at what an entry point offers, and import nothing."""
    distribution = entry.dist
    name, version = (distribution.name, distribution.version) if distribution else ("?", "?")
    parts = entry.value.split(".")
    folder, wrong = None, ""
    if not all(part.isidentifier() for part in parts):
        wrong = "is no name of a package"
    elif parts[0] == "kdexp" or parts[0] in sys.stdlib_module_names or not _owned(distribution, parts[0]):
        wrong = "is not its own"
    else:
        spec = find_spec(parts[0])  # of a package at the top this imports nothing
        inside = [Path(place, *parts[1:]) for place in (spec.submodule_search_locations if spec else None) or []]
        folder = next((place for place in inside if place.is_dir()), None)
        wrong = "" if folder else "is not there"
    return Plugin(entry.name, entry.value, name, version, folder, wrong)


def _owned(distribution: Any, package: str) -> bool:
    """Whether a distribution brings that package; of an editable one that is not known, and believed."""
    if distribution is None:
        return False
    if any(file.parts[0] == package for file in distribution.files or ()):
        return True
    try:
        source = json.loads(distribution.read_text("direct_url.json") or "{}")
    except ValueError:
        return False
    return bool(source.get("dir_info", {}).get("editable"))
