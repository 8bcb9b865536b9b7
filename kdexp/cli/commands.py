"""Verbs beside runs, ``python -m kdexp VERB ...``: a verb is the file of its name in :mod:`kdexp.cli.verbs`.

Verbs that read results belong to the package ``analysis``, which kdexp never imports unless one of them is asked for.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from kdexp.cli import verbs
from kdexp.common import arguments

PROGRAM = "python -m kdexp"
ANALYSIS = {
    "tables": ("analysis.tables", "Scores of a study: mean ± std, n, what can be told apart."),
    "report": ("analysis.report", "A study on one self-contained HTML page."),
    "claims": ("analysis.claims", "The papers' claims, tested on a study's runs."),
    "compare": ("analysis.compare", "Studies side by side."),
    "published": ("analysis.published.__main__", "A study beside the numbers that its paper prints."),
}


def asked(words: Sequence[str]) -> bool:
    """Whether a command line begins with a verb; a run's begins with ``key=value``, ``+key``, ``~key`` or a flag."""
    return bool(words) and "=" not in words[0] and not words[0].startswith(("-", "+", "~"))


def names() -> list[str]:
    """Every verb that can be used here."""
    return sorted([module.name for module in pkgutil.iter_modules(verbs.__path__)] + [n for n in ANALYSIS if _there(n)])


def main(words: Sequence[str]) -> int:
    """Carry out the verb that a command line begins with; return the exit code."""
    name, rest = words[0], words[1:]
    if name == "help":
        print(overview())
        return 0
    if name in ANALYSIS:
        return _analysis(name, rest)
    if name not in names():
        near = difflib.get_close_matches(name, names(), 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        run = f"A run is key=value words: {PROGRAM} +experiment=quickstart."
        print(f"{PROGRAM}: {name!r} is no verb.{hint} Verbs: {', '.join(names())}. {run}", file=sys.stderr)
        return 2
    return arguments.carry_out(f"{PROGRAM} {name}", _verb(name), rest)


def overview() -> str:
    """The page of all verbs."""
    purposes = {name: ANALYSIS[name][1] if name in ANALYSIS else _verb(name).purpose for name in names()}
    tail = [f"The keys of a verb  {PROGRAM} VERB --help", f"Runs and studies    {PROGRAM} --help"]
    return "\n".join([f"{PROGRAM} VERB [key=value ...]", "", *arguments.table(purposes), "", *tail])


def _verb(name: str) -> arguments.Command | arguments.Group:
    return importlib.import_module(f"{verbs.__name__}.{name}").VERB


def _there(name: str) -> bool:
    try:
        return find_spec(ANALYSIS[name][0]) is not None
    except ModuleNotFoundError:
        return False


def _analysis(name: str, words: Sequence[str]) -> int:
    """Hand a verb on to its module; the study's name may stand alone, as everywhere among the verbs."""
    module = ANALYSIS[name][0]
    if not _there(name):
        print(
            f"{PROGRAM} {name} is done by {module.removesuffix('.__main__')}, which is not installed here: use a kdexp "
            "that has its package analysis, such as a checkout of the repository.",
            file=sys.stderr,
        )
        return 2
    bare = next((w for w in words if "=" not in w and w not in arguments.HELP), None)
    given = [f"study={word}" if word == bare else word for word in words]
    return importlib.import_module(module).main(given)
