"""Errors as sentences: what is wrong, the values, the rule, what to do. No traceback for a person's mistake."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdexp.common.problems import ConfigError
from kdexp.common.redact import outward, print_traceback
from kdexp.config import choices


def complain(problems: list[str]) -> None:
    """Print all problems in one message."""
    head = "One thing must change" if len(problems) == 1 else f"{len(problems)} things must change"
    print(outward(f"{head} before this can run:\n" + "\n".join(f"  - {p}" for p in problems)), file=sys.stderr)


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
        print(f"interrupted: {outward(str(error)) or 'Ctrl-C'}. The same command continues.", file=sys.stderr)
        return 130
    if _is_composition(error):
        complain((composition_problems(list(arguments), conf) if conf else []) or [_first_line(error)])
        return 2
    if type(error).__name__ == "OutOfMemoryError":
        print(
            f"failed: the device has too little memory ({_first_line(error)}): raise recipe.accumulation, or lower "
            "recipe.batch_size or recipe.max_length.",
            file=sys.stderr,
        )
        return 1
    if isinstance(error, ValueError | RuntimeError | TimeoutError | OSError) and "torch" not in type(error).__module__:
        print(outward(f"failed: {error}"), file=sys.stderr)
        return 1
    print_traceback(error)
    return 1


def _is_composition(error: BaseException) -> bool:
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    return isinstance(error, HydraException | OmegaConfBaseException)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def composition_problems(arguments: list[str], conf: str) -> list[str]:
    """Find every override that cannot be composed, each alone, and say what is known instead.

    Args:
        arguments: the command line.
        conf: the configuration folder.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import open_dict

    overrides = [a for a in arguments if ("=" in a and not a.startswith("-")) or a.startswith("~")]
    experiment = [o for o in overrides if o.startswith("+experiment=")]
    found = []
    GlobalHydra.instance().clear()
    with initialize_config_dir(conf, version_base="1.3"):
        try:
            base: Any = compose("config")
            with open_dict(base):
                pass
        except Exception as error:
            return [f"the configuration in {conf} is damaged: {_first_line(error)}"]
        for override in overrides:
            beside = [] if override in experiment else experiment
            for value in _alternatives(override):
                problem = _try(compose, [*beside, value], value, base, conf)
                if problem and problem not in found:
                    found.append(problem)
    return found


def _alternatives(override: str) -> list[str]:
    """Split a sweep such as ``init=first,last`` into its values (brackets and quotes are left alone)."""
    key, _, value = override.partition("=")
    if "," in value and not re.search(r"[\[({\"']", value):
        return [f"{key}={v}" for v in value.split(",")]
    if re.search(r"^(choice|range|interval|glob|sort|shuffle)\(", value):
        return []
    return [override]


def _try(compose: Any, overrides: list[str], override: str, base: Any, conf: str) -> str | None:
    """Compose one override on its own; return a sentence if that fails."""
    from omegaconf import OmegaConf

    try:
        compose("config", overrides=overrides)
        return None
    except Exception as error:
        key, _, value = override.lstrip("+~").partition("=")
        group = Path(conf) / key.split("@")[0]
        known = choices.names(group)
        unknown = [option for option in re.findall(r"[\w.-]+", value) if option not in known]
        if group.is_dir() and unknown:
            guess = difflib.get_close_matches(unknown[0], known, 1)
            hint = f" Did you mean {key}={guess[0]}?" if guess else ""
            return choices.missing(override, unknown[0], key, known) + hint
        if group.is_dir() and "Could not override" in str(error):
            return f"{override}: nothing that is chosen has {key} to replace; add it with +{key}={value}."
        if "Could not override" in str(error) or "not in struct" in str(error):
            parent = key.rpartition(".")[0]
            node = OmegaConf.select(base, parent) if parent else base
            known = [str(k) for k in node] if hasattr(node, "keys") else []
            every = _paths(base)
            guess = difflib.get_close_matches(key, every, 1, 0.5)
            hint = f" Did you mean {guess[0]}?" if guess else ""
            listed = (
                f" Keys of {parent or 'the configuration'}: {', '.join(k for k in known if k != 'hydra')}."
                if known
                else ""
            )
            return f"{override}: there is no key {key}.{hint}{listed}"
        return f"{override}: {_first_line(error)}"


def _paths(node: Any, prefix: str = "") -> list[str]:
    """List all dotted keys below a node (``hydra`` left out)."""
    out = []
    for key in node:
        if key == "hydra" and not prefix:
            continue
        path = f"{prefix}{key}"
        out.append(path)
        child = node._get_node(key)
        if hasattr(child, "keys") and not child._is_none() and not child._is_missing():
            out += _paths(child, path + ".")
    return out
