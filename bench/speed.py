"""``python -m bench``: examples a second of distillation, beside the ways that people would use instead.

Every contestant trains the same student on the same examples with the same objective, in a process of its own. Before
anything is timed their losses on one batch are compared, without dropout: who computes something else is named and not
timed. Then they take turns, repetition by repetition, so that a slow minute of the machine hurts all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import report, workloads
from bench.worker import CONTESTANTS, ONLY
from bench.workloads import MODELS, OBJECTIVES, QUANTILES, SHAPES, TASKS, Cell
from kdexp.common import files, machine
from kdexp.config.identity import digest

ROOT = Path(__file__).resolve().parents[1]
OUT = Path("outputs/bench")
TOLERANCE = {"fp32": 1e-4, "bf16": 3e-2}
"""Relative difference of first losses that rounding explains."""
SHORTENED = 4
"""One in so many updates is enough of a loop whose updates all cost the same."""
WARM = 2
QUICK = {"tasks": ["rte", "sst2"], "objectives": ["kd"], "models": ["6-3x384"], "updates": 4, "repeats": 2, "batch": 8}


def parser() -> argparse.ArgumentParser:
    """Return the words that the command knows."""
    made = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    made.epilog = "Other verbs: python -m bench grid, tokens or report, each with --help."
    for name, known, usual in (
        ("tasks", QUANTILES, TASKS),
        ("objectives", OBJECTIVES, OBJECTIVES),
        ("models", SHAPES, MODELS),
        ("contestants", CONTESTANTS, CONTESTANTS),
    ):
        said = f"usual: {' '.join(usual)}" + (
            f"; also: {' '.join(set(known) - set(usual))}" if set(known) - set(usual) else ""
        )
        made.add_argument(f"--{name}", nargs="+", choices=list(known), default=list(usual), metavar="NAME", help=said)
    made.add_argument("--batch", type=int, help="examples an update (usual: 32 at width 384, 8 at width 768)")
    made.add_argument("--updates", type=int, default=8, help="updates a repetition (8); the same examples in each")
    made.add_argument("--repeats", type=int, default=3, help="repetitions (3), after one that does not count")
    made.add_argument("--threads", type=int, default=1, help="threads of each contestant (1)")
    made.add_argument(
        "--order", choices=["shuffled", "bucketed"], default="shuffled",
        help="in which other loops meet the examples: as a shuffling loader gives them (usual), or in kdexp's batches",
    )  # fmt: skip
    made.add_argument("--device", default="cpu", help="cpu (usual) or cuda")
    made.add_argument(
        "--dtype", choices=["auto", "fp32", "bf16"], default="auto", help="of kdexp; others compute in fp32"
    )
    made.add_argument("--compile", action="store_true", help="compile kdexp's step")
    made.add_argument("--out", type=Path, default=OUT, help=f"folder of results ({OUT}); what is there is not repeated")
    made.add_argument("--again", action="store_true", help="measure again what is there already")
    made.add_argument("--quick", action="store_true", help="two small cells in about three minutes")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Measure what is missing, print the table; the exit code is 1 if a contestant of ours failed."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    made = parser()
    made.set_defaults(**(QUICK if "--quick" in words else {}))
    asked = made.parse_args(words)
    if min(asked.updates, asked.repeats, asked.threads, asked.batch or 1) < 1:
        made.error("--updates, --repeats, --threads and --batch are at least 1")
    if (asked.batch or 1) * workloads.POOL < asked.updates or asked.updates > workloads.POOL:
        made.error(
            f"--updates={asked.updates}: a stream is a sample of {workloads.POOL} batches, so take at most that many"
        )
    todo = [
        Cell(
            task, objective, model, asked.batch or SHAPES[model].batch, asked.updates, asked.repeats, asked.threads,
            asked.order, asked.device, asked.dtype, asked.compile,
        )
        for model in asked.models for task in asked.tasks for objective in asked.objectives
    ]  # fmt: skip
    out = asked.out.absolute()
    progress = Progress(todo)
    results = []
    for cell in todo:
        path = out / "cells" / f"{cell.name.replace(' ', '-')}-{digest(asdict(cell))[:8]}.json"
        before = {} if asked.again else kept(path)
        names = [name for name in asked.contestants if cell.objective in ONLY.get(name, OBJECTIVES)]
        missing = [name for name in names if name not in before.get("contestants", {})]
        if missing:
            progress.begin(cell)
            # All of them, for times of two runs cannot be compared.
            result = measure(cell, names, out / "work", progress.say) | {"command": command(words)}
            files.write_text(path, json.dumps(result, indent=1) + "\n")
            progress.end(cell)
        else:
            result = before
        results.append(result)
    print("\n".join(report.speed(results)))
    files.write_text(out / "speed.json", json.dumps(results, indent=1) + "\n")
    files.write_text(out / "speed.md", "\n".join(report.speed(results)) + "\n")
    report.plot(results, out / "speed.png")
    print(f"\n{out}/speed.json, speed.md, speed.png", file=sys.stderr)
    ours = [r["contestants"].get(name, {}) for r in results for name in CONTESTANTS if name.startswith("kdexp")]
    return int(any("wall" not in one for one in ours if one))


def command(words: list[str]) -> str:
    """Return what was typed."""
    return shlex.join(["python", "-m", "bench", *words])


def kept(path: Path) -> dict[str, Any]:
    """Return a result that is there already; {} if there is none, or it cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads(path.read_text()))
    return {}


class Progress:
    """Lines about what is being measured, with the time that is left.

    Args:
        todo: all cells, in order.
    """

    def __init__(self, todo: list[Cell]) -> None:
        self.todo, self.done, self.took, self.number = todo, 0.0, 0.0, 0

    @staticmethod
    def work(cell: Cell) -> float:
        """Return what a cell costs, in some unit."""
        shape, tokens = cell.shape, sum(QUANTILES[cell.task]) + 30 * len(QUANTILES[cell.task])
        return (
            (shape.teacher + 3 * shape.student)
            * shape.width**2
            * cell.batch
            * cell.updates
            * (cell.repeats + 1)
            * tokens
        )

    def begin(self, cell: Cell) -> None:
        """A cell begins."""
        self.number = self.todo.index(cell) + 1
        self.began = time.monotonic()
        self.say(cell, "making models and examples")

    def end(self, cell: Cell) -> None:
        """A cell is measured."""
        self.done += self.work(cell)
        self.took += time.monotonic() - self.began

    def say(self, cell: Cell, text: str) -> None:
        """Print a line."""
        left = ""
        if self.done:
            rest = self.took / self.done * sum(self.work(other) for other in self.todo[self.number - 1 :])
            left = f"; about {max(0.0, rest - (time.monotonic() - self.began)) / 60:.0f} min left"
        print(f"[{self.number}/{len(self.todo)}] {cell.name}: {text}{left}", file=sys.stderr, flush=True)


class Worker:
    """A contestant in its process.

    Args:
        name: of :data:`bench.worker.CONTESTANTS`.
        cell: what it trains.
        folder: of models and examples.
    """

    def __init__(self, name: str, cell: Cell, folder: Path) -> None:
        self.name = name
        log = folder / f"{name}.log"
        self.log = log.open("w")
        threads = str(cell.threads)
        env = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1"}
        if name.startswith("kdexp"):
            env |= machine.allocator()  # as its launchers start their workers
        env["PYTHONPATH"] = os.pathsep.join(p for p in (str(ROOT), env.get("PYTHONPATH", "")) if p)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker", str(folder), json.dumps(asdict(cell)), name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, env=env,
        )  # fmt: skip

    def hear(self) -> dict[str, Any]:
        """Wait for a message; ``error`` in it says that there is no contestant any more."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return dict(json.loads(line)) if line else {"error": f"it ended; its log: {self.log.name}"}

    def ask(self, updates: int, count: bool = False) -> dict[str, Any]:
        """Let it make so many updates; returns what they took."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"updates": updates, "count": count}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return {"error": f"it ended; its log: {self.log.name}"}
        return self.hear()

    def end(self) -> None:
        """Let it go."""
        with contextlib.suppress(OSError):
            assert self.process.stdin is not None
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


@contextlib.contextmanager
def _workers(names: list[str], cell: Cell, folder: Path) -> Iterator[dict[str, Worker]]:
    made: dict[str, Worker] = {}
    try:
        for name in names:
            made[name] = Worker(name, cell, folder)
        yield made
    finally:
        for worker in made.values():
            worker.end()


def measure(cell: Cell, names: list[str], folder: Path, say: Any) -> dict[str, Any]:
    """Compare contestants in one cell.

    Args:
        cell: what is compared.
        names: of the contestants.
        folder: for models and examples.
        say: hears (cell, text) of the progress.
    """
    folder.mkdir(parents=True, exist_ok=True)
    workloads.make(cell, folder)
    examples = workloads.load(cell, folder)
    files.write_text(folder / "settings.json", json.dumps(workloads.settings(cell, folder)))
    for own in (folder / "contestants").glob("*/store"):
        shutil.rmtree(own, ignore_errors=True)
    out: dict[str, dict[str, Any]] = {}
    with _workers(names, cell, folder) as workers:
        say(cell, f"loading {', '.join(names)}")
        for name, worker in workers.items():
            out[name] = worker.hear()
        _compare(out)
        racing = {name: worker for name, worker in workers.items() if not {"error", "differs"} & set(out[name])}
        say(cell, "first losses are " + _losses(out))
        for repetition in range(-1, cell.repeats):
            order = list(racing)
            turn = repetition % max(1, len(order))
            for name in order[turn:] + order[:turn]:
                _round(name, racing, out, cell, warm=repetition < 0)
            if repetition >= 0:
                say(cell, f"repetition {repetition + 1} of {cell.repeats} is measured")
    for one in out.values():
        positions = one.pop("positions", [])
        if positions:
            one["positions"] = sum(positions)
    return {
        "cell": asdict(cell),
        "tokens": int(examples.lengths.sum()),
        "examples": len(examples.lengths),
        "texts": "real" if bool(examples.real) else "lengths drawn from the stated quantiles",
        "contestants": out,
        "machine": {
            "hardware": machine.hardware(cell.device), "versions": machine.versions() | _peers(),
            "date": time.strftime("%Y-%m-%d"),
        },
    }  # fmt: skip


def _round(name: str, racing: dict[str, Worker], out: dict[str, dict[str, Any]], cell: Cell, warm: bool) -> None:
    """Let a contestant make its updates of one repetition, and note what they took."""
    one, positions = out[name], out[name]["positions"]
    part = max(1, cell.updates // SHORTENED) if one.get("shortened") else cell.updates
    count = part if not warm or one.get("shuffles_batches") else min(WARM, part)
    got = racing[name].ask(count, count=warm and not cell.compile)
    if "error" in got:
        one["error"] = got["error"]
        racing.pop(name)
        return
    if warm:
        share = 1.0 if one.get("shuffles_batches") else sum(positions[:count]) / sum(positions)
        one |= {"flops": got["flops"] / share if got["flops"] else None, "first_s": got["wall"]}
        one |= {"wall": [], "cpu": []}  # seconds an example
        return
    seen = count * cell.batch
    one["wall"].append(got["wall"] / seen)
    one["cpu"].append(got["cpu"] / seen)
    one["memory_mb"] = got["memory_mb"]


def _compare(out: dict[str, dict[str, Any]]) -> None:
    """Mark who computes something else than the first contestant (the textbook loop, where it takes part)."""
    known = {name: one["loss"] for name, one in out.items() if one.get("loss") is not None}
    if not known:
        return
    reference = known.get("textbook", next(iter(known.values())))
    for name, loss in known.items():
        bound = TOLERANCE[out[name].get("dtype", "fp32")]
        if not abs(loss - reference) <= bound * abs(reference):
            out[name]["differs"] = f"another computation: its first loss is {loss:.6g}, and {reference:.6g} is expected"


def _losses(out: dict[str, dict[str, Any]]) -> str:
    return ", ".join(
        f"{name} " + (one.get("error") or one.get("differs") or f"{one['loss']:.6g}")
        for name, one in out.items() if one.get("loss") is not None or "error" in one
    )  # fmt: skip


def _peers() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("textbrewer", "torchdistill"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
