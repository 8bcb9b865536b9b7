"""What only the network can tell: whether the hub and object storage answer. Asked once for a run or a whole study."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from kdexp.check import remote
from kdexp.common import network
from kdexp.common.registry import build
from kdexp.config.schema import Config
from kdexp.models import weights


def problems(configs: Iterable[Config]) -> list[str]:
    """Return why models, data or storage that checked configurations name cannot be reached, each once.

    Where nothing will be run (``dry=true``, ``plan=show``) the hub is not asked and nothing is written to the storage.
    """
    seen: dict[str, list[str]] = {}
    for config in configs:
        looking = config.dry or config.plan == "show"
        url = config.runtime.remote
        if f"remote {url}" not in seen:
            seen[f"remote {url}"] = remote.problems(url, write=not looking)
        if looking:
            continue
        teacher = f"{config.teacher.source}@{config.teacher.revision}"
        if teacher not in seen:
            seen[teacher] = _hub(config) or _published(config)
        data = f"{config.task}@{config.data.root}"
        if data not in seen:
            seen[data] = _data(config)
    return list(dict.fromkeys(text for texts in seen.values() for text in texts))


def _data(config: Config) -> list[str]:
    cache = Path(config.runtime.store).expanduser().absolute() / "cache"
    return build(config.task).needs_hub(config.data.root, cache)


def _published(config: Config) -> list[str]:
    kind, _, name = config.teacher.source.partition(":")
    wrong = weights.published(name, config.teacher.revision) if kind == "hub" else []
    return [f"teacher={config.teacher.name}: {text}" for text in wrong]


def _hub(config: Config) -> list[str]:
    """Say why a teacher cannot be had from the hub; [] if it is local or cached, or the hub answers."""
    from huggingface_hub import try_to_load_from_cache

    kind, _, name = config.teacher.source.partition(":")
    if kind != "hub" or isinstance(try_to_load_from_cache(name, "config.json", revision=config.teacher.revision), str):
        return []
    instead = "use a local model (teacher=minilm_l6, or teacher=local teacher.source=path:...)."
    begin = f"teacher.source={config.teacher.source} is not in the local cache and"
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() not in ("0", "", "false"):
        return [f"{begin} the hub is switched off (HF_HUB_OFFLINE=1): unset it, or {instead}"]
    silent = network.silence()
    return [f"{begin} {silent}: check the network, set HF_ENDPOINT, or {instead}"] if silent else []
