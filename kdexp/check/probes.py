"""What only the network can tell: which commits the hub has now, and whether it and object storage answer.

Each source is asked for once a process, so once for a run or a whole study, before anything is loaded. What a revision
stands for is filled into the configuration (``teacher.commit``, ``task.hub_commit``) and travels with it to whoever
carries the run out: nobody asks a second time. Where nothing will be run (``dry=true``, ``plan=show``) nobody is asked,
and nothing is written to the storage: what the cache knows is taken, and the rest stays unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kdexp.check import remote
from kdexp.common import network
from kdexp.common.network import Answer
from kdexp.common.problems import ConfigError
from kdexp.common.registry import build
from kdexp.config.resolve import fill, placed
from kdexp.config.schema import Config
from kdexp.models import source, weights


def problems(configs: Iterable[Config]) -> list[str]:
    """Return why storage that checked configurations name cannot be used, each once."""
    seen: dict[str, list[str]] = {}
    for config in configs:
        url = config.runtime.remote
        if str(url) not in seen:
            seen[str(url)] = remote.problems(url, write=not _looking(config.dry, config.plan))
    return list(dict.fromkeys(text for texts in seen.values() for text in texts))


def _looking(dry: Any, plan: Any) -> bool:
    return bool(dry) or plan == "show"


def pin_models(raw: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Fill in which commits the models of the hub are, and the sizes that their config.json say.

    Args:
        raw: a configuration as plain values; it is not changed.

    Returns:
        The configuration, and why a model cannot be had.
    """
    raw, found = _pin(raw, "teacher")
    if placed(raw.get("init")):
        raw, more = _pin(raw, "init")
        found += more
    return raw, found


def _pin(raw: dict[str, Any], group: str) -> tuple[dict[str, Any], list[str]]:
    """Fill in what a group's model is: the teacher, or the student's checkpoint of the group ``init``."""
    model = raw[group] if isinstance(raw.get(group), dict) else {}
    if model.get("commit") is not None:
        unpinned = {**raw, group: {**model, "commit": None}}
        return unpinned, [f"{group}.commit is filled in by kdexp: say {group}.revision=... to choose a commit."]
    kind, _, name = str(model.get("source")).partition(":")
    revision = model.get("revision")
    if kind != "hub" or not isinstance(revision, str | None):
        return raw, []
    if not network.nameable(name):
        return raw, [f"{group}.source=hub:{name}: models of the hub are called OWNER/NAME (such as hub:org/my-bert)."]
    if revision and not network.proper(revision):  # an empty one is named with the other values
        return raw, [f"{group}.revision={revision}: no branch, tag or commit is called so."]
    looking, off, fixed = _looking(raw.get("dry"), raw.get("plan")), network.switched_off(), network.is_commit(revision)
    answer = network.remembered("model", name, revision) if looking or off or fixed else Answer()
    if not (looking or off or (fixed and _whole(name, answer))):
        answer = network.ask("model", name, revision, "config.json", source.DESCRIPTION)
    if looking and "config.json" not in answer.files:
        answer = Answer()
    label = f"{group}.source=hub:{name}" + (f" (revision {revision})" if revision else "")
    wrong = _unknown(raw, group, label, answer) if looking else _missing(group, label, answer, off, name, revision)
    if answer.commit is None or wrong:
        return raw, wrong
    try:
        return fill({**raw, group: {**model, "commit": answer.commit}}), []
    except ConfigError as error:
        return raw, [f"{label}: {text}" for text in error.problems]


def pin_others(raw: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """As :func:`pin_models`, for the teachers of ``objective.others``."""
    objective = raw["objective"] if isinstance(raw.get("objective"), dict) else {}
    given = objective.get("others")
    if not isinstance(given, dict) or not all(isinstance(other, dict) for other in given.values()):
        return raw, []
    pinned, wrong = {}, list[str]()
    for name, other in given.items():
        filled, told = _pin({**raw, "teacher": other}, "teacher")
        pinned[name] = filled["teacher"]
        wrong += [f"objective.others.{name}: {text}" for text in told]
    return {**raw, "objective": {**objective, "others": pinned}}, wrong


def _whole(name: str, answer: Answer) -> bool:
    """Tell whether the cache has all that a model is loaded from."""
    return answer.commit is not None and not source.lacking(answer.files, network.folder("model", name, answer.commit))


def _unknown(raw: Mapping[str, Any], group: str, label: str, answer: Answer) -> list[str]:
    """Refuse to plan with a model of which nothing is known; its commit alone may stay unknown."""
    if answer.commit is not None or raw[group].get("num_layers" if group == "teacher" else "family") is not None:
        return []
    sizes = "teacher.num_layers, hidden_size, num_heads, vocab_size and family"
    if group == "init":
        sizes = "init.family, student.num_layers, hidden_size, num_heads, intermediate_size and vocab_size"
    return [
        f"{label}: its sizes are not in the local cache, and dry=true and plan=show do not ask the hub: give "
        f"{sizes}, or run it once."
    ]


def _missing(group: str, label: str, answer: Answer, off: str | None, name: str, revision: str | None) -> list[str]:
    """Say that a model cannot be had as a whole."""
    local = "use a local model (teacher=minilm_l6, or teacher=local teacher.source=path:...)"
    local = local if group == "teacher" else "use a local model (init.source=path:...)"
    switch = str(off).partition("=")[0]
    if answer.commit is None and off:
        begin = f"{label} is not in the local cache and the hub is switched off ({off})"
        return [f"{begin}: unset {switch}, or {local}."]
    if answer.commit is None:
        kept = network.remembered("model", name, revision) if answer.absent else Answer()
        rest = f" (the local cache has commit {kept.commit}: HF_HUB_OFFLINE=1 uses that)" if _whole(name, kept) else ""
        return [f"{label}: {answer.trouble}, or {local}{rest}."]
    lacking = source.lacking(answer.files, network.folder("model", name, answer.commit) if off else None)
    if not lacking:
        return []
    if off:
        begin = f"{label}: the local cache has commit {answer.commit} without its {lacking}"
        return [f"{begin}, and the hub is switched off ({off}): unset {switch} once to fetch the rest, or {local}."]
    if lacking == "config.json":
        return [f"{label} has no config.json at commit {answer.commit}: it is no model of transformers; {local}."]
    place = f"{label} at commit {answer.commit}"
    return [weights.none(sorted(answer.files), place, f"hub:{name}", group)]


def pin_data(config: Config) -> tuple[Config, list[str]]:
    """Fill in which commit of the hub a task's data are, and say why they cannot be had."""
    if config.task.get("hub_commit") is not None:
        return config, ["task.hub_commit is filled in by kdexp: say task.hub_revision=... to choose a commit."]
    cache = Path(config.runtime.store).expanduser().absolute() / "cache"
    ask, nodes = not _looking(config.dry, config.plan), {"task": config.task}
    pretrain = config.teacher.pretrain or {}
    if "task" in config.init:  # the texts of a stage of its own
        nodes["init"] = config.init["task"]
    if pretrain:
        nodes["teacher"] = pretrain["task"]
    try:
        pinned = {group: {**node, **build(node).pin(config.data.root, cache, ask)} for group, node in nodes.items()}
    except ValueError as error:
        return config, [f"{error}."]
    if pinned == nodes:
        return config, []
    changes: dict[str, Any] = {"task": pinned["task"]}
    if "teacher" in pinned:
        told = {"pretrain": {**pretrain, "task": pinned["teacher"]}}
        changes["teacher"] = config.teacher.model_copy(update=told)
    if "init" in pinned:
        changes["init"] = {**config.init, "task": pinned["init"]}
    return config.model_copy(update=changes), []
