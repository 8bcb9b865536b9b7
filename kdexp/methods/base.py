"""From a configuration to the ordered stages that one run needs."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from kdexp.common.registry import build
from kdexp.config.resolve import source_folder
from kdexp.store.stage import Stage, order


@dataclass(frozen=True)
class Facts:
    """What a plan's keys hold beside the configuration: contents, not names.

    Attributes:
        data: content hash of the task's data.
        origin: identity of the teacher's pretrained weights.
        dtype: what the numbers are computed in (``fp32`` or ``bf16``), decided for this machine.
    """

    data: str
    origin: str
    dtype: str


def facts(config: dict[str, Any]) -> Facts:
    """Look at the data, the weights and the machine that a resolved configuration names."""
    from kdexp.common.machine import decide_dtype

    task = build(config["task"])
    teacher = config["teacher"]
    folder = source_folder(teacher["source"])
    stamp = tuple(sorted((p.name, p.stat().st_mtime_ns) for p in folder.glob("*"))) if folder else ()
    identity = _origin(teacher["source"], teacher["revision"], teacher["sha256"], stamp)
    runtime = config["runtime"]
    cache = Path(runtime["store"]).expanduser().absolute() / "cache"
    return Facts(
        _fingerprint(task, config["data"]["root"], cache), identity, decide_dtype(runtime["dtype"], runtime["device"])
    )


@lru_cache(maxsize=64)
def _origin(source: str, revision: str | None, sha256: str | None, stamp: tuple) -> str:
    from kdexp.models.source import origin

    return origin({"source": source, "revision": revision, "sha256": sha256})


_FINGERPRINTS: dict[str, str] = {}


def _fingerprint(task: Any, root: str | None, cache: Path) -> str:
    name = f"{task!r}@{Path(root).absolute() if root else None}"
    if name not in _FINGERPRINTS:
        _FINGERPRINTS[name] = task.fingerprint(root, cache)
    return _FINGERPRINTS[name]


def stages(config: dict[str, Any], known: Facts | None = None) -> list[Stage]:
    """Return a run's stages in the order of execution, the last one being the student's.

    The function that makes them is named by ``objective.plan``, so a method that needs stages of its own is a file
    in ``kdexp/methods/``.

    Raises:
        ValueError: ``objective.plan`` names no function of kdexp.
    """
    make = method(config["objective"].get("plan") or "kdexp.methods.distill.plan")
    return order([make(config, known or facts(config))])


def method(path: str) -> Any:
    """Import a function that makes stages.

    Raises:
        ValueError: it does not lie below ``kdexp.methods.``, or is not there.
    """
    module, _, name = path.rpartition(".")
    if not path.startswith("kdexp.methods."):
        raise ValueError(f"objective.plan={path}: a function below kdexp.methods. is needed.")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"objective.plan={path} cannot be loaded: {error}") from error
