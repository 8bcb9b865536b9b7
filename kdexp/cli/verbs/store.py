"""``python -m kdexp store list | show KEY | verify | gc``: finished stages on disk, and their upkeep."""

from __future__ import annotations

import os
from pathlib import Path

from kdexp.common.arguments import JSON, Command, Group, Key, number, print_json
from kdexp.store import upkeep
from kdexp.store.store import Store, size


def _store(folder: str) -> Store:
    return Store(Path(folder or os.environ.get("KDEXP_STORE", "multirun/.store")))


def list_stages(store: str, json: bool) -> int:
    """Print finished stages, oldest first; as JSON with ``bytes`` (0: only the record is left)."""
    if not json:
        return upkeep.list_stages(_store(store))
    rows = [
        {key: stage.meta[key] for key in ("key", "name", "finished", "seconds", "shared")}
        | {"bytes": size(stage.folder) if stage.meta["files"] else 0}
        for stage in _store(store).entries()
    ]
    print_json(rows)
    return 0


def show(key: str, store: str, json: bool) -> int:
    """Print a stage's record, which is JSON in any case."""
    return upkeep.show(_store(store), key)


def verify(store: str, json: bool) -> int:
    """Read everything; 1 if something is damaged."""
    said: list[str] = []
    read, damaged = upkeep.verify(_store(store), said.append if json else print)
    if json:
        print_json({"stages": read, "damaged": damaged, "said": said})
    return 1 if damaged else 0


def gc(what: str, days: float | None, store: str, json: bool) -> int:
    """Free space."""
    said: list[str] = []
    freed = upkeep.gc(_store(store), what, days, said.append if json else print)
    if json:
        print_json({"freed": freed, "said": said})
    return 0


def _days(text: str) -> float | None:
    days = number(text) if text else None
    if days is not None and days < 0:
        raise ValueError("is below 0")
    return days


STORE = Key("folder of the store; empty: KDEXP_STORE, or multirun/.store", "")
VERB = Group(
    "Finished stages on disk: see them, check them, free space.",
    {
        "list": Command("Finished stages, oldest first.", list_stages, {"store": STORE, "json": JSON}),
        "show": Command(
            "The record of one stage, as JSON.",
            show,
            {"key": Key("beginning of the stage's key, as list shows it", bare=True), "store": STORE, "json": JSON},
        ),
        "verify": Command(
            "Read every finished stage and name the damaged ones; exit code 1 if there are any.",
            verify,
            {"store": STORE, "json": JSON},
        ),
        "gc": Command(
            "Free space: weights between phases that no result names. Teachers stay in any case.",
            gc,
            {
                "what": Key("all: all but teachers; work: old begun stages; cache: what teachers said", "", bare=True),
                "days": Key(f"with gc work: untouched for so many days; empty: {upkeep.DAYS:g}", "", kind=_days),
                "store": STORE,
                "json": JSON,
            },
            upkeep.FORMS,
        ),
    },
    default="list",
)
