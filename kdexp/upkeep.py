"""Upkeep of the store: find damage, free space."""

from __future__ import annotations

import shutil

from kdexp import files
from kdexp.store import Store, size


def verify(store: Store) -> int:
    """Read every finished stage, name the damaged ones; the exit code is 1 if there are any."""
    bad = 0
    for found in store.entries():
        try:
            store.get(found.meta["key"])
        except ValueError as error:
            bad += 1
            print(error)
    print(f"{len(store.entries())} stages read, {bad} damaged")
    return 1 if bad else 0


def wanted(store: Store) -> set[str]:
    """Return the keys of students that a result.json beside the store names as its weights."""
    results = (files.read_json(p) for p in store.root.parent.glob("*/*/result.json"))
    return {str(r["student"]["weights"]).rpartition("/")[2] for r in results if r and r["student"].get("weights")}


def collect(store: Store, everything: bool) -> int:
    """Free space: weights between phases that no result names; with ``everything`` also begun stages and students.

    Teachers and other shared stages are kept, and so are stages that a process is building or using.
    """
    from filelock import FileLock, Timeout

    freed, keep = 0, set() if everything else wanted(store)
    for found in store.entries():
        if not found.meta["shared"] and found.meta["files"] and found.meta["key"] not in keep:
            before = size(found.folder)
            store.drop_weights(found.meta["key"])
            freed += before - size(found.folder)
    begun = list((store.root / "work").glob("*"))
    for work in begun if everything else []:
        try:
            with FileLock(store.root / "locks" / f"{work.name}.lock", timeout=0):
                freed += size(work)
                shutil.rmtree(work)
        except Timeout:
            print(f"{work.name[:12]} is being built: left alone")
    print(f"freed {freed / 1e6:.1f} MB in {store.root}; kept: shared stages (teachers)", end="")
    print(
        "" if everything else f", {len(keep)} students that results name, {len(begun)} begun stages (gc all drops them)"
    )
    return 0
