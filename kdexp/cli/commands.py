"""Verbs beside runs, ``kdexp VERB ...``: a verb is the file of its name in :mod:`kdexp.cli.verbs`.

Verbs that read results belong to the package ``analysis``, which kdexp never imports unless one of them is asked for.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from kdexp.cli import offer, verbs
from kdexp.cli.words import experiment
from kdexp.common import arguments, beside
from kdexp.common.arguments import PROGRAM, Command, Group, Key

ANALYSIS = {
    "tables": "Scores of a study: mean ± std, n, what can be told apart.",
    "report": "A study on one self-contained HTML page.",
    "claims": "The papers' claims, tested on a study's runs.",
    "compare": "Two methods of a study: three questions, and what the next hour buys.",
    "chosen": "A grid's best point on validation, beside the one that held-out rows choose.",
    "published": "A study beside the numbers that its paper prints.",
    "reproduce": "A known study's scores, claims in words and paper, all at once.",
    "search": "What mattered in a search, and its figures.",
    "results": "The page of results, from the finished desk studies.",
    "simulate": "How often the verdicts and intervals of these verbs are wrong.",
}
"""Verbs of ``analysis``: each is the ``VERB`` of the module of its name, but for :data:`ELSEWHERE`."""
ELSEWHERE = {"published": "published.__main__", "reproduce": "studies"}


def asked(words: Sequence[str]) -> bool:
    """Whether a command line begins with a verb; a run's begins with ``key=value``, ``+key``, ``~key`` or a flag."""
    return bool(words) and "=" not in words[0] and not words[0].startswith(("-", "+", "~"))


def files() -> list[str]:
    """The verbs of kdexp itself."""
    return [module.name for module in pkgutil.iter_modules(verbs.__path__)]


def names() -> list[str]:
    """Every verb that can be used here."""
    return sorted([*files(), *(ANALYSIS if beside.has_analysis() else ())])


def main(words: Sequence[str]) -> int:
    """Carry out the verb that a command line begins with; return the exit code."""
    name, rest = words[0], words[1:]
    if name == "help":
        return arguments.carry_out(f"{PROGRAM} help", HELP, rest)
    if name in names():
        return arguments.carry_out(f"{PROGRAM} {name}", load(name), rest)
    print(f"{PROGRAM}{_refusal(name)}", file=sys.stderr)
    return 2


def _refusal(name: str) -> str:
    """Why a word is no verb, as the end of the sentence that the program's name begins."""
    if name in ANALYSIS:
        return f" {_absent(name)}"
    meant = experiment(name)
    if meant:
        return f": {name!r} is no verb but an experiment: {PROGRAM} {meant}."
    near = difflib.get_close_matches(name, names(), 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    run = f"A run is key=value words: {PROGRAM} +experiment=quickstart."
    return f": {name!r} is no verb.{hint} Verbs: {', '.join(names())}. {run}"


def load(name: str) -> Command | Group:
    """A verb, from its file."""
    if name in ANALYSIS:
        return reader(ELSEWHERE.get(name, name)).VERB
    return importlib.import_module(f"{verbs.__name__}.{name}").VERB


def reader(name: str) -> ModuleType:
    """Return a module of ``analysis``, which is imported now.

    Raises:
        ValueError: it is not installed.
    """
    if not beside.has_analysis():
        raise ValueError(_absent(name))
    return importlib.import_module(f"{beside.ANALYSIS}.{name}")


def _absent(what: str) -> str:
    return (
        f"{what} is done by kdexp's analysis, which is not installed here: use a kdexp that has its folder analysis, "
        "such as a checkout of the repository or an installed wheel."
    )


# --- help ----------------------------------------------------------------------------------------------------------


def purposes() -> dict[str, str]:
    """What each verb is for; those of ``analysis`` are not imported for it."""
    return {name: ANALYSIS[name] if name in ANALYSIS else load(name).purpose for name in names()}


def overview() -> str:
    """The page of all verbs."""
    more = {
        f"{PROGRAM} VERB --help": "the keys of a verb",
        f"{PROGRAM} help GROUP": f"what can be chosen: {', '.join(offer.groups())}",
        f"{PROGRAM} --help": "runs and studies",
    }
    lines = [
        f"{PROGRAM} VERB [key=value ...]",
        "",
        *arguments.table(purposes()),
        "",
        "More",
        "",
        *arguments.table(more),
    ]
    return "\n".join(lines)


def _help(about: str, json: bool) -> int:
    """Print the page of all verbs, of one, or of what a group of ``conf/`` offers.

    Raises:
        ValueError: there is no verb and no group of that name.
    """
    verbs_, groups = names(), offer.groups()
    if about and about not in (*verbs_, *groups):
        near = difflib.get_close_matches(about, [*verbs_, *groups], 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(f"{about!r} is neither a verb ({', '.join(verbs_)}) nor a group ({', '.join(groups)}).{hint}")
    meant = [[name for name in known if about in ("", name)] for known in (verbs_, groups)]
    if json:
        told = {"verbs": {name: as_data(load(name)) for name in meant[0]}}
        arguments.print_json({**told, "choices": {group: offer.described(group) for group in meant[1]}})
        return 0
    pages = [arguments.page(f"{PROGRAM} {name}", load(name)) for name in meant[0]]
    pages += ["\n".join([f"{group}=", *arguments.table(offer.described(group))]) for group in meant[1]]
    print("\n\n".join(pages) if about else overview())
    return 0


HELP = Command(
    "All verbs, the keys of one, or what can be chosen of a group.",
    _help,
    {"about": Key("a verb, or a group such as objective; empty: all verbs", "", bare=True), "json": arguments.JSON},
)


def as_data(verb: Command | Group) -> dict[str, Any]:
    """A verb's purpose and keys (of a group: its commands) as JSON has them."""
    if isinstance(verb, Group):
        inner = {name: as_data(command) for name, command in verb.commands.items()}
        return {"purpose": verb.purpose, "default": verb.default, "commands": inner}
    keys = {
        name: {"help": key.help, "default": key.default, "values": key.values, "bare": key.bare}
        for name, key in verb.keys.items()
    }
    return {"purpose": verb.purpose, "keys": keys}
