"""Command lines of ``key=value`` words: typed keys with help; a wrong request is one sentence and exit code 2."""

from __future__ import annotations

import difflib
import io
import json
import math
import os
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdexp.common import names
from kdexp.common.problems import say

PROGRAM = "kdexp" if Path(sys.argv[0]).stem == "kdexp" else "python -m kdexp"
"""The program as it was called, for what people are told to type."""
WIDTH = 80
HELP = ("-h", "--help", "help")


@dataclass(frozen=True)
class Key:
    """One key of a command.

    Attributes:
        help: what it decides.
        default: its text when it is not given; ``None``: it must be given.
        values: the only texts it takes, where they are limited.
        kind: makes the value of the text; its ``ValueError`` ends the sentence that ``key='text'`` begins.
        bare: the value may stand alone, without ``key=``; several such keys are filled in their order.
    """

    help: str
    default: str | None = None
    values: tuple[str, ...] = ()
    kind: Callable[[str], Any] = str
    bare: bool = False


@dataclass(frozen=True)
class Command:
    """What a verb does: ``run`` gets every key by name and returns the exit code; ``hint`` ends a refusal."""

    purpose: str
    run: Callable[..., int]
    keys: Mapping[str, Key] = field(default_factory=dict)
    hint: str = ""


@dataclass(frozen=True)
class Group:
    """A verb of several commands; ``default`` is the one that is meant when none is named."""

    purpose: str
    commands: Mapping[str, Command]
    default: str | None = None


# --- kinds of values -----------------------------------------------------------------------------------------------


def truth(text: str) -> bool:
    """``true`` or ``false``; ``yes`` and ``no`` are understood."""
    if text not in ("true", "false", "yes", "no"):
        raise ValueError("is neither true nor false")
    return text in ("true", "yes")


def whole(text: str) -> int:
    """A whole number."""
    try:
        return int(text)
    except ValueError:
        raise ValueError("is no number; a whole one is needed") from None


def positive(text: str) -> int:
    """A whole number from 1 on."""
    value = whole(text)
    if value < 1:
        raise ValueError("is below 1")
    return value


def number(text: str) -> float:
    """A finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError("is no number")
    return value


def study_name(text: str) -> str:
    """A study's name."""
    wrong = names.study_problem(text)
    if wrong:
        raise ValueError(wrong)
    return text


STUDY = Key("name of the study: its folder below root, and its MLflow experiment", kind=study_name)
ROOT = Key("folder that holds the studies", "multirun")
JSON = Key("print JSON for programs instead of lines for people", "false", ("true", "false"), truth)


def print_json(value: Any) -> None:
    """Print what :data:`JSON` asks for; a number that is not finite, which JSON does not have, becomes null."""
    print(json.dumps(json.loads(json.dumps(value, default=_plain), parse_constant=lambda name: None), indent=1))


def _plain(value: Any) -> Any:
    """A path, or a number of NumPy's, as JSON has it."""
    return str(value) if isinstance(value, Path) else value.item()


# --- from words to values ------------------------------------------------------------------------------------------


def parse(words: Sequence[str], keys: Mapping[str, Key], hint: str = "") -> dict[str, Any]:
    """Return the value of every key, given or by default.

    Raises:
        ValueError: all problems at once, and the keys there are.
    """
    texts: dict[str, str] = {}
    problems = []
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            name, text = next((n for n, key in keys.items() if key.bare and n not in texts), ""), word
        if not name:
            problems.append(f"{word!r} is not key=value")
        elif name not in keys:
            problems.append(f"{name!r} is no key (value {text!r}).{_guess(name, keys, '=...')}")
        elif name in texts:
            problems.append(f"{name}= is given twice, as {texts[name]!r} and {text!r}")
        else:
            texts[name] = text
    values = {}
    for name, key in keys.items():
        text_or_none = texts.get(name, key.default)
        if text_or_none is None:
            problems.append(f"{name}= must be given: {key.help}")
        elif key.values and text_or_none not in key.values:
            problems.append(f"{name}={text_or_none!r} is not one of {', '.join(key.values)}")
        else:
            try:
                values[name] = key.kind(text_or_none)
            except ValueError as error:
                problems.append(f"{name}={text_or_none!r} {error}")
    if problems:
        sentences = [problem if problem[-1] in ".?" else f"{problem}." for problem in problems]
        tail = f"; {hint}" if hint else ""
        raise ValueError(f"{' '.join(sentences)} Keys: {', '.join(keys) or 'none'}{tail}")
    return values


def show_what_can_be_shown() -> None:
    """Print ``?`` for signs that the terminal's encoding does not have (± in ASCII), here and in processes to come."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")
    encoding = os.environ.get("PYTHONIOENCODING")
    if encoding and ":" not in encoding:
        os.environ["PYTHONIOENCODING"] = f"{encoding}:replace"


def carry_out(program: str, verb: Command | Group, words: Sequence[str]) -> int:
    """Do what the words after a program's name ask for; return its exit code.

    2: the request cannot work (a ``ValueError``: a wrong word, or a study that is not there). 1: it failed on the way.
    130: interrupted. Each is one sentence on stderr.
    """
    show_what_can_be_shown()
    try:
        return _carry_out(program, verb, words)
    except BrokenPipeError:  # the reader (head, less) has seen enough; files are written before anything is printed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ValueError as error:
        say(f"{program}: {error}", [str(error)])
        return 2
    except (OSError, RuntimeError) as error:
        say(f"{program} failed: {error}", [str(error)])
        return 1
    except KeyboardInterrupt:
        say(f"{program}: interrupted")
        return 130


def _carry_out(program: str, verb: Command | Group, words: Sequence[str]) -> int:
    asks = any(word in HELP for word in words)
    if isinstance(verb, Command):
        if asks:
            print(page(program, verb))
            return 0
        return verb.run(**parse(words, verb.keys, verb.hint))
    named = next((word for word in words if "=" not in word and word not in HELP), None)
    if asks and named is None:
        print(page(program, verb))
        return 0
    name = named or verb.default or ""
    if name not in verb.commands:
        wrong = f"{name!r} is no command" if name else "which command?"
        raise ValueError(f"{wrong}; choose one of {', '.join(verb.commands)}.{_guess(name, verb.commands)}")
    rest = list(words)
    if named:
        rest.remove(named)
    return _carry_out(f"{program} {name}", verb.commands[name], rest)


def _guess(word: str, known: Mapping[str, Any], after: str = "") -> str:
    near = difflib.get_close_matches(word, known, 1)
    return f" Did you mean {near[0]}{after}?" if near else ""


# --- help ----------------------------------------------------------------------------------------------------------


def page(program: str, verb: Command | Group) -> str:
    """The help page of a command or a group, at most :data:`WIDTH` columns wide."""
    if isinstance(verb, Group):
        rows = {name: command.purpose for name, command in verb.commands.items()}
        head, tail = f"{program} COMMAND [key=value ...]", ["", f"The keys of a command: {program} COMMAND --help"]
    else:
        rows = {f"{name}=": _explained(key) for name, key in verb.keys.items()}
        words = [(name.upper(), key.default) for name, key in verb.keys.items() if key.bare]
        bare = "".join(f" {word}" if default is None else f" [{word}]" for word, default in words)
        head, tail = f"{program}{bare} [key=value ...]", []
    return "\n".join([head, "", *textwrap.wrap(verb.purpose, WIDTH), "", *table(rows), *tail])


def table(rows: Mapping[str, str], cut: bool = False) -> list[str]:
    """Lines of two columns: words, and what they mean; with ``cut``, no more of it than fits beside the word."""
    left = max((len(name) for name in rows), default=0) + 4
    lines = []
    for name, text in rows.items():
        shown = textwrap.shorten(text, WIDTH - left, placeholder=" ...") if cut else text
        lines += textwrap.wrap(shown, WIDTH, initial_indent=f"  {name:<{left - 2}}", subsequent_indent=" " * left)
    return lines


def _explained(key: Key) -> str:
    default = "required" if key.default is None else f"default {key.default or 'empty'}"
    choice = f" ({' | '.join(key.values)})" if key.values else ""
    return f"{key.help}{choice} [{default}]"
