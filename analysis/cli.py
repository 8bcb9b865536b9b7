"""The ``key=value`` command lines of this folder: unknown keys and impossible values end with a sentence and exit
code 2."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Key:
    """One key of a command line: its help, its default (``None``: must be given) and, where limited, its values."""

    help: str
    default: str | None = None
    values: tuple[str, ...] = ()


STUDY = Key("name of the study: the folder multirun/<study>/ and the MLflow experiment")
COMMON: dict[str, Key] = {
    "study": STUDY,
    "root": Key("folder that holds the studies", "multirun"),
    "source": Key(
        "where results are read from: the tracking store or each run's result.json", "mlflow", ("mlflow", "folders")
    ),
    "uri": Key("MLflow tracking URI; empty: sqlite:///<root>/mlflow.db", ""),
    "incomplete": Key("what to do when runs of the study are missing", "refuse", ("refuse", "allow")),
    "extra": Key("finished runs that the study's last grid does not list", "leave", ("leave", "include")),
    "mixture": Key("runs of one cell that differ in data, selection or settings", "refuse", ("refuse", "allow")),
    "by": Key(
        "settings with columns of their own, as student.sharing,recipe.epochs; auto: those that the grid varies; none",
        "auto",
    ),
}


def parse(arguments: Sequence[str], keys: Mapping[str, Key]) -> dict[str, str]:
    """``key=value`` words -> every key with its value or default. ``ValueError`` lists all problems at once."""
    out = {name: key.default for name, key in keys.items()}
    problems = []
    for word in arguments:
        name, equals, value = word.partition("=")
        if not equals:
            problems.append(f"{word!r} is not key=value")
        elif name not in keys:
            problems.append(f"{name!r} is no key (value {value!r})")
        elif keys[name].values and value not in keys[name].values:
            problems.append(f"{name}={value!r} is not one of {', '.join(keys[name].values)}")
        else:
            out[name] = value
    problems += [f"{name}= must be given: {keys[name].help}" for name, value in out.items() if value is None]
    study = out.get("study")
    if study and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", study):
        problems.append(f"study={study!r} is no study name; it is one folder name without slashes")
    if problems:
        raise ValueError("; ".join(problems) + f". Keys: {', '.join(keys)}")
    return {name: value or "" for name, value in out.items()}


def usage(module: str, purpose: str, keys: Mapping[str, Key]) -> str:
    """The help page of a command."""
    lines = [f"python -m {module} key=value ...", "", purpose, ""]
    for name, key in keys.items():
        default = "required" if key.default is None else f"default {key.default or 'empty'}"
        choice = f" ({' | '.join(key.values)})" if key.values else ""
        lines.append(f"  {name:<12}{key.help}{choice} [{default}]")
    return "\n".join(lines)


def main(
    module: str,
    purpose: str,
    keys: Mapping[str, Key],
    run: Callable[[dict[str, str]], object],
    arguments: Sequence[str] | None = None,
) -> int:
    """Parse and run; a ``ValueError`` (a person's mistake, or a study that is not ready) is one message and code 2."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if any(word in ("-h", "--help", "help") for word in words):
        print(usage(module, purpose, keys))
        return 0
    try:
        run(parse(words, keys))
    except BrokenPipeError:  # the reader (head, less) has seen enough; the files are written before anything is printed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except ValueError as error:
        print(f"{module}: {error}", file=sys.stderr)
        return 2
    return 0
