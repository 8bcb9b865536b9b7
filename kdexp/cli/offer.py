"""The page of ``kdexp --help``: what can be chosen, each with the first sentence of its file; grids, verbs, options."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from kdexp.cli.words import CONFIG_PATH
from kdexp.common import contributed
from kdexp.common.arguments import PROGRAM, table
from kdexp.common.redact import printable

OPTIONS = {
    "-m": "carry out every combination of the values listed with commas (init=first,last)",
    "--cfg job": "print the configuration, and run nothing",
    "--config-dir DIR": "a further folder of choices, laid out as conf/",
    "--info searchpath": "print the folders that choices come from",
    "-sc install=bash": 'completion by the tab key: eval "$(kdexp -sc install=bash)"',
    "--version": "print the versions of kdexp, Hydra and Python",
}
"""Options that people need, of those that Hydra has (``--hydra-help``)."""
COMMAND = re.compile(r"^(\w+=\S+ )*(python -m \w|kdexp |make ).*?(\s{2,}|$)")
"""The beginning of a comment that is a command line, with what stands beside it."""
END = re.compile(r"(?<!\bal)(?<!\be\.g)[.?!](?=\s+\D|$)")
"""The end of a sentence."""


def folders() -> list[Path]:
    """Return the folders of choices that need not be named: kdexp's own and those of plugins."""
    return [Path(CONFIG_PATH), *(plugin.conf for plugin in contributed.usable() if plugin.conf)]


def groups(places: Sequence[Path] | None = None) -> list[str]:
    """Return the names of the groups that something can be chosen of."""
    files = [path.relative_to(place) for place in places or folders() for path in place.rglob("[!_]*.yaml")]
    return sorted({file.parent.as_posix() for file in files if len(file.parts) > 1 and file.parts[0] != "hydra"})


def described(group: str, places: Sequence[Path] | None = None) -> dict[str, str]:
    """Return what can be chosen of a group, each with the first sentence of its file."""
    known: dict[str, str] = {}
    for place in places or folders():
        for path in sorted((place / group).glob("[!_]*.yaml")):
            known.setdefault(path.stem, sentence(path) + _origin(path))
    return dict(sorted(known.items()))


def sentence(path: Path) -> str:
    """Return the first sentence that the comment at a file's head says, command lines left out."""
    said = ""
    for line in _comment(path):
        rest = COMMAND.sub("", line).strip()
        if COMMAND.match(line) and rest.startswith("("):
            continue
        said = f"{said} {rest}".strip()
        end = END.search(said)
        if end:
            return said[: end.end()]
        if said and not rest:
            break
    return said


def grid() -> dict[str, str]:
    """Return the keys of a grid with what the comments of the sweeper's file say of them."""
    keys, said = {}, ""
    for line in (Path(CONFIG_PATH) / "hydra" / "sweeper" / "grid.yaml").read_text(encoding="utf-8").splitlines():
        key = re.match(r"([a-z]\w*):", line)
        if key:
            keys[key[1]] = said
        said = line[2:] if line.startswith("# ") else ""
    return keys


def page(places: Sequence[Path], verbs: dict[str, str]) -> str:
    """Return all of it, at most :data:`WIDTH` columns wide.

    Args:
        places: the folders of choices.
        verbs: name -> purpose.
    """
    lines = [f"Whole sentences about the choices of a group: {PROGRAM} help GROUP", ""]
    for group in groups(places):
        lines += [f"{group}=", *table(described(group, places), cut=True), ""]
    lines += ["Grids: what a file in conf/experiment/ writes below hydra.sweeper", "", *table(grid()), ""]
    lines += [f"Verbs: {PROGRAM} VERB ...", "", *table(verbs), ""]
    lines += ["Options", "", *table(OPTIONS)]
    return "\n".join(lines)


def install(verbs: Callable[[], dict[str, str]]) -> None:
    """Let Hydra's ``--help`` show the page; for the program, before ``hydra.main``.

    Args:
        verbs: gives them by name, with their purposes.
    """
    from hydra._internal.hydra import Hydra

    plain = Hydra.format_config_groups

    def shown(self: Any, predicate: Any, compact: bool = True) -> str:
        if not predicate("objective"):  # the groups of Hydra's own
            return plain(self, predicate, compact)
        sources = [source for source in self.config_loader.get_sources() if source.scheme() == "file"]
        return page([Path(source.path) for source in sources], verbs())

    Hydra.format_config_groups = shown  # type: ignore[method-assign]


def _comment(path: Path) -> Iterator[str]:
    """The lines of the comment at a file's head, without its sign and without words for Hydra."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if not line.startswith("#"):
            return
        if "@package" not in line:
            yield printable(line[1:]).strip()


def _origin(path: Path) -> str:
    """Whose choice it is, where it is not kdexp's."""
    for plugin in contributed.usable():
        if plugin.conf and path.is_relative_to(plugin.conf):
            return f" [{plugin.distribution} {plugin.version}]"
    return ""
