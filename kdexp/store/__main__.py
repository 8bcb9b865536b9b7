"""``python -m kdexp.store list | show KEY | verify | gc [all | work [days=N]]  [store=FOLDER]``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from kdexp.store import upkeep
from kdexp.store.store import Store


def main(argv: list[str]) -> int:
    """Carry one command line out; 2 and one sentence on stderr for words that mean nothing."""
    settings = dict(word.split("=", 1) for word in argv if "=" in word)
    verb, *rest = [word for word in argv if "=" not in word] or ["list"]
    store = Store(Path(settings.pop("store", os.environ.get("KDEXP_STORE", "multirun/.store"))))
    try:
        if verb == "gc" and len(rest) <= 1 and settings.keys() <= {"days"}:
            days = settings.get("days")
            if days is not None and not days.replace(".", "", 1).isdigit():
                raise ValueError(f"days={days} is no number: {upkeep.FORMS}")
            return upkeep.gc(store, "".join(rest), None if days is None else float(days))
        if verb == "show" and len(rest) == 1 and not settings:
            return upkeep.show(store, rest[0])
        if verb in ("list", "verify") and not rest and not settings:
            return (upkeep.list_stages if verb == "list" else upkeep.verify)(store)
        raise ValueError(f"usage: {__doc__}; {upkeep.FORMS}")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
