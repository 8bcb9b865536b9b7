"""A run that was carried out before: its result, and whether it still holds."""

from __future__ import annotations

from typing import Any

from kdexp.common import results
from kdexp.common.network import is_commit
from kdexp.methods.base import Facts
from kdexp.run.spec import RunSpec, facts


def finished(spec: RunSpec) -> dict[str, Any] | None:
    """Return a run's result if it is there and belongs to this configuration, else None.

    Raises:
        Damaged: it is there, and not what was written.
    """
    result = results.read(spec.run_dir)
    return result if result is not None and result["run"].get("id") == spec.id else None


def stale(spec: RunSpec, result: dict[str, Any], looked: dict[str, Facts] | None = None) -> str | None:
    """Say what has changed below a finished run: the data's content or the teacher's weights; None if nothing has.

    Args:
        looked: what was found below runs of the same data, teacher and machinery; it is added to.
    """
    looked = {} if looked is None else looked
    below = spec.config.model_dump_json(include={"task", "data", "teacher", "init", "runtime"})
    if below not in looked:
        looked[below] = facts(spec.config)
    now = looked[below]
    pairs = (
        ("data", result["task"].get("data_hash"), now.data),
        ("rows without labels", result["task"].get("unlabelled_hash"), now.further or ""),
        ("teacher's weights", result.get("origin"), now.origin),
        ("student's own weights", result["student"].get("origin"), now.own),
    )
    for what, then, here in pairs:
        if then not in (None, here):
            far = spec.config.runtime.remote
            places = f" and {far}/runs/{'/'.join(spec.run_dir.parts[-2:])}" if far else ""
            return (
                f"{spec.run_dir} is finished, but its {what} had another content then ({_short(then)}, now "
                f"{_short(here)}): {_former(what, spec, result)}give the study another name (study=...), or delete "
                f"that folder{places} to run it again."
            )
    return None


def _short(content: str) -> str:
    """Return a hash in few digits; a commit of the hub whole, for it can be asked for."""
    return content if content.startswith("hub:") else content[:19]


def _former(what: str, spec: RunSpec, result: dict[str, Any]) -> str:
    """Say how to go on with the commit of the hub that a finished run was made from; '' if there is none to name."""
    if what == "data":
        then, now, key = result["task"].get("hub_commit"), spec.config.task.get("hub_commit"), "task.hub_revision"
    elif what == "student's own weights":
        then, now, key = str(result["student"]["origin"]), spec.config.init.get("commit"), "init.revision"
        then = then.partition("@")[2]
    else:
        then, now, key = str(result["origin"]).partition("@")[2], spec.config.teacher.commit, "teacher.revision"
    if now is None or then == now or not is_commit(then):
        return ""
    return f"go on with the former ({key}={then}; finished stages are taken from the store), "
