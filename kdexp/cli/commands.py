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
from types import ModuleType

from kdexp.cli import verbs
from kdexp.cli.words import experiment
from kdexp.common import arguments

PROGRAM = "python -m kdexp"
ANALYSIS = {
    "tables": "Scores of a study: mean ± std, n, what can be told apart.",
    "report": "A study on one self-contained HTML page.",
    "chosen": "A grid's best point on validation, beside the one that held-out rows choose.",
    "claims": "The papers' claims, tested on a study's runs.",
    "compare": "Studies side by side.",
    "published": "A study beside the numbers that its paper prints.",
}
"""Verbs that are modules of ``analysis`` with a ``main``."""


def asked(words: Sequence[str]) -> bool:
    """Whether a command line begins with a verb; a run's begins with ``key=value``, ``+key``, ``~key`` or a flag."""
    return bool(words) and "=" not in words[0] and not words[0].startswith(("-", "+", "~"))


def files() -> list[str]:
    """The verbs of kdexp itself."""
    return [module.name for module in pkgutil.iter_modules(verbs.__path__)]


def names() -> list[str]:
    """Every verb that can be used here."""
    return sorted([*files(), *(name for name in ANALYSIS if _module(name))])


def main(words: Sequence[str]) -> int:
    """Carry out the verb that a command line begins with; return the exit code."""
    name, rest = words[0], words[1:]
    if name == "help":
        print(overview())
        return 0
    if name in files():
        return arguments.carry_out(f"{PROGRAM} {name}", load(name), rest)
    if name in ANALYSIS:
        return _analysis(name, rest)
    near = difflib.get_close_matches(name, names(), 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    meant = experiment(name)
    if meant:
        print(f"{PROGRAM}: {name!r} is no verb but an experiment: {PROGRAM} {meant}.", file=sys.stderr)
        return 2
    run = f"A run is key=value words: {PROGRAM} +experiment=quickstart."
    print(f"{PROGRAM}: {name!r} is no verb.{hint} Verbs: {', '.join(names())}. {run}", file=sys.stderr)
    return 2


def overview() -> str:
    """The page of all verbs."""
    purposes = {name: ANALYSIS[name] if name in ANALYSIS else load(name).purpose for name in names()}
    tail = [f"The keys of a verb  {PROGRAM} VERB --help", f"Runs and studies    {PROGRAM} --help"]
    return "\n".join([f"{PROGRAM} VERB [key=value ...]", "", *arguments.table(purposes), "", *tail])


def load(name: str) -> arguments.Command | arguments.Group:
    """A verb of kdexp itself, from its file."""
    return importlib.import_module(f"{verbs.__name__}.{name}").VERB


def reader(name: str) -> ModuleType:
    """Return a module of ``analysis``, which is imported now.

    Raises:
        ValueError: it is not installed.
    """
    module = _module(name)
    if module is None:
        raise ValueError(_absent(name, name))
    return importlib.import_module(module)


def _absent(what: str, name: str) -> str:
    return (
        f"{what} is done by analysis.{name}, which is not installed here: use a kdexp that has its package analysis, "
        "such as a checkout of the repository."
    )


def _module(name: str) -> str | None:
    """The module that does a verb of ``analysis``, as ``python -m`` finds it; None if it is not installed."""
    try:
        spec = find_spec(f"analysis.{name}")
    except ModuleNotFoundError:
        return None
    return None if spec is None else f"{spec.name}.__main__" if spec.submodule_search_locations else spec.name


def _analysis(name: str, words: Sequence[str]) -> int:
    """Hand a verb on to its module; the study's name may stand alone, as everywhere among the verbs."""
    module = _module(name)
    if module is None:
        print(_absent(f"{PROGRAM} {name}", name), file=sys.stderr)
        return 2
    bare = next((word for word in words if "=" not in word and word not in arguments.HELP), None)
    given = [f"study={word}" if word == bare else word for word in words]
    return importlib.import_module(module).main(given)
