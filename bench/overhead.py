"""``python -m bench.overhead FILE OVERRIDE ...``: seconds of runs of one update, and what of them evaluation takes.

The runs are carried out in this process after another one of their kind, as a process of a grid does that has imported
everything. Their teacher is in the store.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.workloads import composed
from kdexp.run import execute, spec
from kdexp.train import evaluate

OBJECTIVES = ("kd", "att_kl")


class Spent:
    """Wall and processor seconds inside some functions, by name."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}
        self.inside = 0

    def watch(self, module: Any, name: str, what: str) -> None:
        """Count the calls of a function, outermost ones only."""
        function: Callable[..., Any] = getattr(module, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            wall, cpu = time.perf_counter(), time.process_time()
            self.inside += 1
            try:
                return function(*args, **kwargs)
            finally:
                self.inside -= 1
                if not self.inside:
                    self.wall[what] = self.wall.get(what, 0.0) + time.perf_counter() - wall
                    self.cpu[what] = self.cpu.get(what, 0.0) + time.process_time() - cpu

        setattr(module, name, watched)


def main() -> int:
    """Carry the runs out and write what they took."""
    out, overrides = Path(sys.argv[1]), sys.argv[2:]
    spent = Spent()
    spent.watch(evaluate, "predict", "evaluation")
    told: dict[str, Any] = {}
    for objective in OBJECTIVES:
        for seed in (101, 102, 103):
            words = [w for w in overrides if not w.startswith("seed=")]
            run = spec.make(
                composed(
                    [w if w != "debug=smoke" else "+debug=smoke" for w in words]
                    + [f"objective={objective}", f"seed={seed}"]
                )
            )
            spent.wall.clear()
            spent.cpu.clear()
            wall, cpu = time.perf_counter(), time.process_time()
            execute.execute(run)
            whole = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
            inside = {"wall": spent.wall.get("evaluation", 0.0), "cpu": spent.cpu.get("evaluation", 0.0)}
        told[objective] = {
            "all of it": whole, "evaluation": inside,
            "beyond evaluation": {key: whole[key] - inside[key] for key in whole},
        }  # fmt: skip
    out.write_text(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
