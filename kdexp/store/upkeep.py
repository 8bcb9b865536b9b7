"""Upkeep of the store: see what is there, find damage, free space."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from kdexp.common import files, results
from kdexp.common.files import Damaged
from kdexp.store import features, leases
from kdexp.store.store import DAMAGED, Store, size

Say = Callable[[str], None]
"""Gets a sentence for people."""
DAYS = 7.0
"""Days after which unfinished work is taken for given up, unless ``days=N`` says otherwise."""

FORMS = f"say gc, gc all, gc work, gc cache, or gc work days=N (by default {DAYS:g})"


def list_stages(store: Store) -> int:
    """Print a line a finished stage, oldest first."""
    stages = store.entries(_complain)
    for stage in stages:
        meta = stage.meta
        state = f"{size(stage.folder) / 1e6:.1f} MB" if stage.whole else "record only"
        print(f"{meta['key'][:12]}  {meta['finished']}  {meta['seconds']:8.1f} s  {state:>12}  {meta['name']}")
    print(f"{len(stages)} finished stages in {store.root}{_cached(store)}")
    return 0


def show(store: Store, key: str) -> int:
    """Print the record of the stage whose key begins so.

    Raises:
        ValueError: no stage begins so, or several do.
    """
    match = [stage for stage in store.entries(_complain) if stage.meta["key"].startswith(key)]
    if len(match) != 1:
        raise ValueError(f"{len(match)} stages begin with {key}: give more of the key (python -m kdexp store list)")
    print(json.dumps(match[0].meta, indent=1))
    return 0


def verify(store: Store, say: Say = print) -> tuple[int, int]:
    """Read every finished stage and name the damaged ones; return how many were read, and how many of them are."""
    good, bad = store.entries(say), 0
    broken = len(list(store.root.glob("*/meta.json"))) - len(good)
    for found in good:
        try:
            store.get(found.meta["key"])
        except Damaged as error:
            bad += 1
            say(f"{error}: the command that needs this stage builds it again")
    say(f"{len(good) + broken} stages read, {bad + broken} damaged")
    return len(good) + broken, bad + broken


def wanted(store: Store) -> tuple[set[str], list[Damaged]]:
    """Return the keys of students that a result beside the store names as its weights, and the results that cannot say.

    Args:
        store: the results are those of the studies beside it.
    """
    keys, broken = set(), []
    for path in sorted(store.root.parent.glob(f"*/*/{results.RESULT}")):
        try:
            weights = ((results.read(path.parent) or {}).get("student") or {}).get("weights")
        except Damaged as error:
            broken.append(error)
            continue
        if weights:
            keys.add(str(weights).rpartition("/")[2])
    return keys, broken


def _complain(sentence: str) -> None:
    print(sentence, file=sys.stderr)


def gc(store: Store, what: str = "", days: float | None = None, say: Say = print) -> int:
    """Free space; returns the bytes.

    Args:
        what: empty = :func:`collect`; ``all`` = everything but teachers; ``cache`` = :func:`drop_cache`; ``work`` =
            :func:`drop_work`.
        days: with ``work``, since when nobody has touched what goes.
        say: is told what went and what stays.

    Raises:
        ValueError: there is no such thing to free.
    """
    if what not in ("", "all", "cache", "work") or (days is not None and what != "work"):
        asked = f"gc {what}".strip() + ("" if days is None else f" days={days:g}")
        raise ValueError(f"there is no {asked}: {FORMS}")
    if what == "work":
        return drop_work(store, DAYS if days is None else days, say)
    if what == "cache":
        return drop_cache(store, say)
    return collect(store, what == "all", say)


def collect(store: Store, everything: bool, say: Say = print) -> int:
    """Free space: weights between phases that no result names; with ``everything`` all that can be made again.

    That is begun stages, students, and what teachers have said. Teachers and other shared stages are kept, and so is
    what a process is building or using.
    """
    freed, (keep, broken) = _drop_leftovers(store), (set(), []) if everything else wanted(store)
    for error in broken:
        _complain(f"{error}: run its study again, which mends it, or delete it; until then students stay")
    waiting = 0 if everything else leases.waiting(store.root)
    for found in [] if waiting or broken else store.entries(_complain):
        if not found.meta["shared"] and found.whole and found.meta["key"] not in keep:
            before = size(found.folder)
            store.drop_weights(found.meta["key"])
            freed += before - size(found.folder)
    if waiting:
        say(f"{waiting} unfinished runs share phases: what is between phases stays until they have ended (or gc all)")
    begun = list((store.root / "work").glob("*"))
    for work in begun if everything else []:
        freed += _drop(store, work, say)
    freed += sum(feature.drop() for feature in _features(store)) if everything else 0
    more = "" if everything else f", {len(keep)} students that results name, {_begun(begun)}{_cached(store)}"
    say(f"freed {freed / 1e6:.1f} MB in {store.root}; kept: shared stages (teachers){more}")
    return freed


def drop_cache(store: Store, say: Say = print) -> int:
    """Free what teachers have said about training examples, but for what a process reads; it can be made again."""
    there = _features(store)
    freed = sum(feature.drop() for feature in there)
    left = len(_features(store))
    say(f"freed {freed / 1e6:.1f} MB in {features.folder(store.root)}: {len(there) - left} features of teachers")
    say(f"kept: {left} features that a process reads or writes")
    return freed


def _features(store: Store) -> list[features.FeatureFile]:
    return features.everything(features.folder(store.root))


def _cached(store: Store) -> str:
    """Say what teachers' features take; '' if there are none."""
    there = len(_features(store))
    taken = features.size(features.folder(store.root)) / 1e6
    return f"; {there} features of teachers of {taken:.1f} MB (gc cache drops them)" if there else ""


def drop_work(store: Store, days: float, say: Say = print) -> int:
    """Free the unfinished stages that nobody has touched for so many days.

    They hold checkpoints: of runs that were killed or stopped, and of trials that a search gave up. Whoever takes such
    a run up again afterwards begins its phase anew.
    """
    begun = list((store.root / "work").glob("*"))
    old = [work for work in begun if time.time() - _touched(work) >= 86400 * days]
    freed = sum(_drop(store, work, say) for work in old)
    left = [work for work in begun if work.exists()]
    say(f"freed {freed / 1e6:.1f} MB in {store.root}: {len(begun) - len(left)} begun stages, {days:g} days or older")
    say(f"kept: {_begun(left)}")
    return freed


def _drop_leftovers(store: Store) -> int:
    """Free what was set aside as damaged, and what killed processes were just writing; returns the bytes."""
    day_ago, freed = time.time() - 86400, 0
    old = (path for path in store.root.rglob(files.ASIDE) if _touched(path) < day_ago)
    for path in [*(store.root / DAMAGED).glob("*"), *old]:
        freed += size(path) if path.is_dir() else path.stat().st_size
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    return freed


def _drop(store: Store, work: Path, say: Say) -> int:
    """Remove a stage's work folder unless a process is at it; returns the bytes."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(store.root / "locks" / f"{work.name}.lock", timeout=0):
            if not work.exists():  # it has just been finished
                return 0
            freed = size(work)
            shutil.rmtree(work)
            return freed
    except Timeout:
        say(f"{work.name[:12]} is being built: left alone")
        return 0


def _begun(works: list[Path]) -> str:
    if not works:
        return "0 begun stages"
    oldest = (time.time() - min(_touched(work) for work in works)) / 86400
    sizes = sum(size(work) for work in works) / 1e6
    said = f"{len(works)} begun stages of {sizes:.1f} MB, the oldest {oldest:.1f} days"
    return f"{said} (gc work drops old ones, gc all drops all)"


def _touched(work: Path) -> float:
    """Return when something in a folder was written last; somebody may be at work in it."""
    times = []
    for path in (work, *work.rglob("*")):
        with contextlib.suppress(OSError):
            times.append(path.stat().st_mtime)
    return max(times, default=time.time())
