"""``python -m bench.worker FOLDER CELL NAME``: one contestant in a process of its own, with memory of its own.

It says on its standard output, in lines of JSON, what :class:`bench.contestants.base.Clock` sends, and reads orders
from its standard input. Whatever else is printed goes to its log.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

from bench.workloads import Cell, load

CONTESTANTS = {
    "gemm": "bench.contestants.gemm.train",
    "textbook": "bench.contestants.textbook.train",
    "textbrewer": "bench.contestants.textbrewer.train",
    "textbrewer-cached": "bench.contestants.textbrewer.train_cached",
    "torchdistill": "bench.contestants.torchdistill.train",
    "kdexp-live": "bench.contestants.kdexp.live",
    "kdexp-cached": "bench.contestants.kdexp.cached",
}
"""Names of contestants -> the functions that train."""
ONLY = {"textbrewer-cached": ("kd",)}
"""Contestants that do not take part in every objective."""


def main() -> int:
    """Train until nobody wants more."""
    folder, cell, name = Path(sys.argv[1]), Cell(**json.loads(sys.argv[2])), sys.argv[3]
    outbox = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import torch

    from bench.contestants.base import Clock, Ended, Given

    torch.set_num_threads(cell.threads)
    module, _, function = CONTESTANTS[name].rpartition(".")
    told = json.loads((folder / "settings.json").read_text())
    own = folder / "contestants" / name
    own.mkdir(parents=True, exist_ok=True)
    (own / "models").unlink(missing_ok=True)
    (own / "models").symlink_to(folder / "models")
    given = Given(cell, load(cell, folder), told["terms"], told["config"], own, Clock(sys.stdin, outbox, cell.device))
    try:
        getattr(importlib.import_module(module), function)(given)
    except Ended:
        return 0
    except Exception as error:
        print(
            json.dumps({"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}),
            file=outbox,
        )
        raise
    return 1


if __name__ == "__main__":
    sys.exit(main())
