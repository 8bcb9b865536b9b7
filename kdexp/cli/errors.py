"""Errors as sentences: what is wrong, the values, the rule, what to do. No traceback for a person's mistake."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdexp.cli import words
from kdexp.common.problems import ConfigError, near, say
from kdexp.common.redact import print_traceback
from kdexp.config import choices


def complain(problems: list[str]) -> None:
    """Print all problems in one message."""
    head = "One thing must change" if len(problems) == 1 else f"{len(problems)} things must change"
    say(f"{head} before this can run:\n" + "\n".join(f"  - {p}" for p in problems), problems)


def report(error: BaseException, arguments: Sequence[str] = (), conf: str | None = None) -> int:
    """Print what ended the program and return its exit code.

    2: the request itself cannot work. 1: something failed on the way. 130: interrupted.

    Args:
        error: what was raised.
        arguments: the command line, to look again for what could not be composed.
        conf: the configuration folder; None = it was composed.
    """
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, ConfigError):
        complain(error.problems)
        return 2
    if type(error).__name__ == "Interrupted" or isinstance(error, KeyboardInterrupt):
        say(f"interrupted: {error or 'Ctrl-C'}. The same command continues.")
        return 130
    if os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0"):
        print_traceback(error)
    if _is_composition(error):
        complain(_composition(error, list(arguments), conf))
        return 2
    if str(error).startswith("Invalid plugin"):
        complain([f"{_first_line(error)}: kdexp's launchers need hydra/sweeper=grid or hydra/sweeper=optuna."])
        return 2
    if type(error).__name__ == "OutOfMemoryError":
        say(
            f"failed: the device has too little memory ({_first_line(error)}): raise recipe.accumulation, or lower "
            "recipe.batch_size or recipe.max_length."
        )
        return 1
    if isinstance(error, ValueError | RuntimeError | TimeoutError | OSError) and "torch" not in type(error).__module__:
        say(f"failed: {error}", [str(error)])
        return 1
    print_traceback(error)
    return 1


def _composition(error: BaseException, arguments: list[str], conf: str | None) -> list[str]:
    """Return why a configuration could not be composed; the words are looked at again, one by one."""
    if str(error).startswith(("Ambiguous value", "Sweep parameters")):
        found = words.ambiguous(words.ordered(arguments)[1])
        if found:
            return found
    try:
        return (composition_problems(arguments, conf) if conf else []) or [_first_line(error)]
    except Exception:  # not even without the words
        return [_first_line(error)]


def _is_composition(error: BaseException) -> bool:
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    return isinstance(error, HydraException | OmegaConfBaseException)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def composition_problems(arguments: list[str], conf: str) -> list[str]:
    """Find every word that cannot be composed with those that can, and say what is known instead.

    Choices of groups come first, so that a value is judged in the groups that were asked for. Where a choice is wrong,
    a key below its group may be right: it is named only if it is nearly one that is known.

    Args:
        arguments: the command line.
        conf: the configuration folder; ``--config-dir`` and ``hydra.searchpath`` are looked into as well.
    """
    flags, overrides = words.ordered(arguments)
    reader = _Reader(conf, words.config_dir(flags), [o for o in overrides if o.startswith("hydra.searchpath=")])
    found: dict[str, str] = {}
    missing: set[str] = set()
    for override in sorted(overrides, key=lambda override: not reader.chooses(override)):
        for value in _alternatives(override):
            problem, doubtful = reader.take(value)
            key = value.lstrip("+~").partition("=")[0]
            if problem and reader.chooses(override):
                missing.add(key.split("@")[0])
                found.setdefault(value, problem)
            elif problem and not (doubtful and missing & {"experiment", "debug", key.partition(".")[0]}):
                found.setdefault(key, problem)
    return list(found.values())


def _alternatives(override: str) -> list[str]:
    """Split a sweep such as ``init=first,last`` into its values (brackets and quotes are left alone)."""
    key, _, value = override.partition("=")
    if "," in value and not re.search(r"[\[({\"']", value):
        return [f"{key}={v}" for v in value.split(",")]
    if re.search(r"^(choice|range|interval|glob|sort|shuffle)\(", value):
        return []
    return [override]


class _Reader:
    """Composes a configuration word by word; those that fail are left out.

    Args:
        conf: the configuration folder.
        more: a further folder, as ``--config-dir`` names it.
        places: the words that name further ones.
    """

    def __init__(self, conf: str, more: str | None, places: list[str]):
        from hydra._internal.config_loader_impl import ConfigLoaderImpl
        from hydra._internal.utils import create_config_search_path
        from hydra.core.config_search_path import SearchPathQuery

        path = create_config_search_path(conf)
        if more is not None:
            path.prepend("command-line", f"file://{Path(more).absolute()}", SearchPathQuery(provider="schema"))
        self.loader, self.good = ConfigLoaderImpl(path), list(places)
        self.config = self._compose([])

    def _compose(self, overrides: list[str]) -> Any:
        from hydra.types import RunMode

        return self.loader.load_configuration("config", [*self.good, *overrides], RunMode.RUN)

    def chooses(self, override: str) -> bool:
        """Whether a word chooses an option of a group."""
        return bool(self._options(override.lstrip("+~").partition("=")[0]))

    def _options(self, key: str) -> list[str]:
        names = self.loader.get_group_options(key.split("@")[0], None, "config", self.good)
        return [name for name in names if not name.startswith("_")]

    def take(self, override: str) -> tuple[str | None, bool]:
        """Compose one word more.

        Returns:
            None, or what is wrong with it; and whether that could be another word's fault.
        """
        if override in self.good:
            return None, False
        try:
            self.config = self._compose([override])
        except Exception as error:
            return self._why(override, error)
        self.good.append(override)
        return None, False

    def _why(self, override: str, error: Exception) -> tuple[str, bool]:
        key, _, value = override.lstrip("+~").partition("=")
        known, wanted = self._options(key), re.findall(r"[\w.-]+", value)
        unknown = [option for option in wanted if option not in known]
        if known and unknown:
            guess = difflib.get_close_matches(unknown[0], known, 1)
            hint = f" Did you mean {override.partition('=')[0]}={guess[0]}?" if guess else ""
            return choices.missing(override, unknown[0], key, known) + hint, False
        if known and "Could not override" in str(error):
            return f"{override}: nothing that is chosen has {key} to replace; add it with +{key}={value}.", True
        if "Could not override" in str(error) or "not in struct" in str(error):
            return self._no_key(override, key)
        return f"{override}: {_first_line(error)}", False

    def _no_key(self, override: str, key: str) -> tuple[str, bool]:
        from omegaconf import OmegaConf

        parent = key.rpartition(".")[0]
        node = OmegaConf.select(self.config, parent) if parent else self.config
        listed = [str(k) for k in node if k != "hydra"] if hasattr(node, "keys") else []
        tail = f" Keys of {parent or 'the configuration'}: {', '.join(listed)}." if listed else ""
        inside = key.startswith("hydra.")
        known = paths(self.config.hydra, "hydra.") if inside else paths(self.config)
        doubtful = not difflib.get_close_matches(key, known, 1, 0.85)
        return f"{override}: there is no key {key}.{near(key, known)}{tail}", doubtful


def paths(node: Any, prefix: str = "") -> list[str]:
    """List all dotted keys below a node (``hydra`` left out)."""
    out = []
    for key in node:
        if key == "hydra" and not prefix:
            continue
        path = f"{prefix}{key}"
        out.append(path)
        child = node._get_node(key)
        if hasattr(child, "keys") and not (child._is_none() or child._is_missing() or child._is_interpolation()):
            out += paths(child, path + ".")
    return out
