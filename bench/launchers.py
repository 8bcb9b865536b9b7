"""One study on every launcher: how long it takes, what a run costs beside its own work, and that all scores are equal.

``python -m bench.launchers [experiment=quickstart] [launchers=basic,local,ray,submitit] [form=study|smoke] [slots=N]
[threads=1] [folder=DIR] [any override of kdexp]``. ``form=smoke`` makes the smallest possible runs, so that hardly
anything but overhead is left. ``folder`` keeps everything that was written; else it is deleted. Each launcher gets a
folder of its own with a copy of one store, in which the teachers and the tokenised data are there already. Submitit
works with ``executor=local``. A launcher whose package is missing is skipped. The exit code is 1 if a launcher fails or
the results of two differ.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdexp.common.machine import cores

NAMES = ("basic", "local", "ray", "submitit")
DEFAULTS = {"experiment": "quickstart", "launchers": ",".join(NAMES), "form": "study", "slots": "", "threads": "1"}
DEFAULTS["folder"] = ""
USAGE = "usage: python -m bench.launchers " + " ".join(f"[{k}={v or '...'}]" for k, v in DEFAULTS.items())
COLUMNS = "launcher  slots  runs    wall s    runs s   train s   first s  overhead s/run  untrained s/run"
LEGEND = (
    "runs s: what the runs say they took (cost.seconds), summed; train s: of that, updates of students.\n"
    "first s: from the command to the beginning of the first run. overhead: (wall x slots - runs s) / runs;\n"
    "untrained: (wall x slots - train s) / runs, which also holds imports, loading and measuring."
)


@dataclass(frozen=True)
class Measured:
    """What one launcher did: seconds from start to end and to its first run, and the results by the runs' names."""

    slots: int
    wall: float
    first: float
    results: dict[str, dict[str, Any]]

    def row(self, name: str) -> str:
        """Return a line of the table."""
        runs, train = (sum(r["cost"][key] for r in self.results.values()) for key in ("seconds", "train_seconds"))
        count = len(self.results)
        paid = self.wall * self.slots
        return (
            f"{name:<8} {self.slots:>6} {count:>5} {self.wall:>9.1f} {runs:>9.1f} {train:>9.1f} {self.first:>9.2f} "
            f"{(paid - runs) / count:>15.2f} {(paid - train) / count:>16.2f}"
        )


def main(arguments: list[str] | None = None) -> int:
    """Measure each launcher, print the table, compare the results; the exit code says whether they are equal."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    own = dict(DEFAULTS) | {k: v for k, _, v in (a.partition("=") for a in given) if k in DEFAULTS}
    overrides = [a for a in given if a.partition("=")[0] not in DEFAULTS]
    names = own["launchers"].split(",")
    if own["form"] not in ("study", "smoke") or set(names) - set(NAMES) or not all("=" in a for a in given):
        print(USAGE, file=sys.stderr)
        return 2
    threads = int(own["threads"])
    slots = int(own["slots"] or max(1, cores() // threads))
    study = [f"+experiment={own['experiment']}", f"runtime.threads={threads}", *overrides]
    study += ["debug=smoke"] if own["form"] == "smoke" else []
    folder = Path(own["folder"] or tempfile.mkdtemp(prefix="kdexp-launchers-")).absolute()
    try:
        return _measure_all(names, study, slots, threads, folder)
    finally:
        if not own["folder"]:
            shutil.rmtree(folder, ignore_errors=True)


def _measure_all(names: list[str], study: list[str], slots: int, threads: int, folder: Path) -> int:
    store = folder / "store"
    print("building the teachers (not measured)", flush=True)
    _kdexp([*study, "recipe.steps=1", "runtime.keep_weights=none"], "local", slots, threads, folder / "teachers", store)
    print(COLUMNS, flush=True)
    measured: dict[str, Measured] = {}
    for name in names:
        if name in ("ray", "submitit") and importlib.util.find_spec(name) is None:
            print(f"{name:<8} skipped: the package {name} is not installed", flush=True)
            continue
        where = folder / name
        shutil.copytree(store, where / "store", ignore=shutil.ignore_patterns("locks", "work"))
        measured[name] = _measure(name, study, slots, threads, where)
        print(measured[name].row(name), flush=True)
    print(LEGEND)
    differs = difference({name: found.results for name, found in measured.items()})
    print(differs or f"the results of {len(measured)} launchers are identical ({', '.join(measured)})")
    return 1 if differs else 0


def _measure(name: str, study: list[str], slots: int, threads: int, where: Path) -> Measured:
    began = time.time()
    _kdexp(study, name, slots, threads, where, where / "store")
    wall = time.time() - began
    files = sorted((where / "multirun" / "bench").glob("*/result.json"))
    found = {path.parent.name: json.loads(path.read_text()) for path in files}
    # A run writes this file once, when it begins.
    first = min((path.parent / ".hydra" / "config.yaml").stat().st_mtime for path in files) - began
    return Measured(1 if name == "basic" else min(slots, len(found)), wall, first, found)


def _kdexp(study: list[str], launcher: str, slots: int, threads: int, where: Path, store: Path) -> None:
    """Run a study to its end in a folder of its own; leave with what it printed if it fails."""
    where.mkdir(parents=True, exist_ok=True)
    settings = [f"hydra/launcher={launcher}", "study=bench", f"runtime.store={store}"]
    if launcher != "basic":
        settings += [f"hydra.launcher.slots={slots}", f"hydra.launcher.threads={threads}"]
    if launcher == "submitit":
        settings.append("hydra.launcher.executor=local")
    package = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(p for p in (package, os.environ.get("PYTHONPATH", "")) if p)
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "kdexp", *study, *settings]
    done = subprocess.run(command, cwd=where, env=env, text=True, capture_output=True, check=False)
    (where / "output.txt").write_text(done.stdout + done.stderr)
    if done.returncode:
        print(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}", file=sys.stderr)
        raise SystemExit(f"launcher {launcher} ended with code {done.returncode}; its output is above.")


def difference(results: dict[str, dict[str, dict[str, Any]]]) -> str | None:
    """Return the first difference between launchers' results, as a sentence; None if there is none.

    Args:
        results: launcher -> run -> result.json. Compared, exactly: which runs there are, their scores on all splits,
            the epoch that was chosen, and their teachers' scores.
    """
    first, *others = results or {"": {}}
    for other in others:
        missing = set(results[first]) ^ set(results[other])
        if missing:
            return f"{min(missing)} was carried out by only one of {first} and {other}"
        for run in sorted(results[first]):
            for what in ("scores", "best", "teacher"):
                a, b = results[first][run][what], results[other][run][what]
                if a != b:
                    return f"{run}: {what} is {json.dumps(a)} with {first}, but {json.dumps(b)} with {other}"
    return None


if __name__ == "__main__":
    sys.exit(main())
