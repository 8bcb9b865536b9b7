"""A search with pruning, undisturbed and killed, beside one without pruning: what is lost, and what it costs.

``python -m bench.search [trials=40] [kills=2] [folder=NEW] [keep=false] [OVERRIDE ...]`` runs
``python -m kdexp +experiment=tune`` three times in folders of their own, with three copies of one store that holds
nothing but the teacher; further words (such as ``hydra.launcher.slots=2``) go to all of them. The killed one loses its
sweeper by SIGKILL when its trials are ended to equal parts, the first time one of its runs as well, and is continued by
the same command. The exit code is 1 if a trial or a run was lost, or done twice.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdexp.common import files
from kdexp.common.searches import counted

ROOT = Path(__file__).parents[1]
WAYS = {"pruned": [], "pruned, killed": [], "whole": ["hydra.sweeper.pruner=none"]}
ENDED = ("COMPLETE", "PRUNED", "FAIL")
LIMIT_S = 4 * 3600.0


@dataclass
class Way:
    """One search: its folder, its command, and what was seen when it was killed."""

    name: str
    home: Path
    words: list[str]
    trials: int
    seconds: float = 0.0
    shot: str = ""  # the run that was killed itself
    cut: int = 0  # runs that were under way when it was killed, over all times
    over: list[set[str]] = field(default_factory=list)  # at each kill, the runs that had ended
    before: dict[str, tuple[int, bytes]] = field(default_factory=dict)  # finished runs then: result.json
    wrong: list[str] = field(default_factory=list)

    @property
    def study(self) -> Path:
        """The study's folder."""
        return self.home / "multirun" / "tune"

    def start(self) -> subprocess.Popen[bytes]:
        """Start the command, in a process group of its own."""
        command = [sys.executable, "-m", "kdexp", "+experiment=tune", f"hydra.sweeper.n_trials={self.trials}"]
        env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
        env.pop("KDEXP_STORE", None)
        with (self.home / "output.txt").open("ab") as log:
            return subprocess.Popen(
                [*command, *self.words], cwd=self.home, env=env, stdout=log, stderr=log, start_new_session=True
            )

    def found(self) -> list[Any]:
        """Return the trials that count, from the journal."""
        if not (self.study / "optuna.journal").exists():
            return []
        import optuna

        from kdexp.sweep.search import settings

        settings.quiet()
        storage = settings.journal(self.study / "optuna.journal")
        if "tune" not in optuna.get_all_study_names(storage):
            return []
        return counted(optuna.load_study(study_name="tune", storage=storage).get_trials(deepcopy=False))

    def runs(self) -> dict[str, dict[str, Any]]:
        """Return run -> status.json."""
        return {path.parent.name: files.read_json(path) or {} for path in self.study.glob("*/status.json")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the three searches, check them, print the table."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    given = {"trials": "40", "kills": "2", "folder": "", "keep": "false"}
    given |= {k: v for k, _, v in (word.partition("=") for word in words) if k in given}
    more = [word for word in words if word.partition("=")[0] not in given]
    home = Path(given["folder"] or tempfile.mkdtemp(prefix="kdexp-search-")).absolute()
    print(f"in {home}", flush=True)
    _teacher(home / "teacher", more)
    ways = []
    for name, own in WAYS.items():
        way = Way(name, home / name.replace(", ", "_"), [*more, *own], int(given["trials"]))
        way.home.mkdir(parents=True)
        shutil.copytree(home / "teacher" / "multirun" / ".store", way.home / "multirun" / ".store")
        began = time.time()
        _carry_out(way, int(given["kills"]) if "killed" in name else 0)
        way.seconds = time.time() - began
        _once_more(way)
        _check(way)
        ways.append(way)
        print(f"{name}: {way.seconds:.0f} s{''.join(f'; {text}' for text in way.wrong)}", flush=True)
    _table(ways)
    if given["keep"] != "true" and not any(way.wrong for way in ways):
        shutil.rmtree(home)
    return 1 if any(way.wrong for way in ways) else 0


def _teacher(home: Path, more: list[str]) -> None:
    """Build the teacher: one trial of one epoch, a run that no search has; then forget all but the teacher."""
    from kdexp.store.store import Store

    way = Way("teacher", home, [*more, "recipe.epochs=1", "hydra.sweeper.figures=false"], 1)
    home.mkdir(parents=True)
    began = time.time()
    if _through(way.start()):
        raise SystemExit(f"the teacher could not be built:\n{(home / 'output.txt').read_text()[-2000:]}")
    store = Store(home / "multirun" / ".store")
    for entry in store.entries():
        if not entry.meta["shared"]:
            store.remove(entry.meta["key"])
    shutil.rmtree(store.root / "work", ignore_errors=True)
    print(f"teacher: {time.time() - began:.0f} s, not counted below", flush=True)


def _carry_out(way: Way, kills: int) -> None:
    """Start the command as often as it is killed, and once more; until it is through."""
    for number in range(1, kills + 1):
        process = way.start()
        try:
            _until(way, process, round(way.trials * number / (kills + 1)))
        except BaseException:
            process.terminate()  # its runs save themselves and leave
            raise
        _kill(way, process, a_run_too=number == 1)
    code = _through(way.start())
    if code:
        way.wrong.append(f"exit code {code}: {way.home / 'output.txt'}")


def _until(way: Way, process: subprocess.Popen[bytes], goal: int) -> None:
    """Wait until so many trials have ended and a run is under way."""
    while True:
        ended = sum(trial.state.name in ENDED for trial in way.found())
        under_way = [run for run in way.runs().values() if run.get("state") == "running"]
        if ended >= goal and under_way:
            return
        if process.poll() is not None:
            raise SystemExit(f"{way.name}: it ended before it could be killed: see {way.home / 'output.txt'}")
        time.sleep(0.5)


def _kill(way: Way, process: subprocess.Popen[bytes], a_run_too: bool) -> None:
    """Kill the sweeper, and one of its runs before it; note what was under way and what was finished."""
    status = way.runs()
    active = sorted(name for name, run in status.items() if run.get("state") == "running")
    if a_run_too:
        way.shot = random.Random(1).choice(active)
        os.kill(int(status[way.shot]["pid"]), signal.SIGKILL)
        print(f"{way.name}: run {way.shot} killed", flush=True)
    process.kill()
    process.wait()
    way.cut += len(active)
    way.over.append({name for name, run in way.runs().items() if run.get("state") == "finished" or run.get("pruned")})
    way.before |= _results(way)
    ended = sum(trial.state.name in ENDED for trial in way.found())
    print(f"{way.name}: sweeper killed with {ended} trials ended and {len(active)} runs under way", flush=True)


def _results(way: Way) -> dict[str, tuple[int, bytes]]:
    return {p.parent.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in way.study.glob("*/result.json")}


def _through(process: subprocess.Popen[bytes]) -> int:
    """Wait for a command and return its exit code; whatever happens, nothing of its process group is left."""
    try:
        return process.wait(LIMIT_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _once_more(way: Way) -> None:
    """Start the finished search again: it must find nothing to do."""
    before = (way.runs(), _results(way), len(way.found()))
    code = _through(way.start())
    if code or before != (way.runs(), _results(way), len(way.found())):
        way.wrong.append(f"the same command after the end changed something (exit code {code})")


def _check(way: Way) -> None:
    """Note in ``way.wrong`` whatever was lost or done twice."""
    trials, runs, results = way.found(), way.runs(), _results(way)
    numbers = sorted(int(trial.user_attrs.get("again", trial.number)) for trial in trials)
    if numbers != list(range(way.trials)):
        way.wrong.append(f"trials {numbers}, wanted 0..{way.trials - 1} once each")
    for trial in trials:
        if trial.state.name not in ENDED:
            way.wrong.append(f"trial {trial.number} is {trial.state.name}")
        for point in trial.user_attrs.get("points", []):
            result = files.read_json(way.study / point["name"] / "result.json")
            if trial.state.name != "COMPLETE":
                continue
            if result is None:
                way.wrong.append(f"trial {trial.number} is complete, but {point['name']} has no result")
            elif trial.value != result["best"]["scores"][result["task"]["metric"]]:
                way.wrong.append(f"trial {trial.number} has {trial.value}, its run another score")
    for name, seen in way.before.items():
        if results.get(name) != seen:
            way.wrong.append(f"{name} was finished when the sweeper was killed, and its result is another now")
    for name, status in runs.items():
        # begun again after each kill before its end; the one that was shot perhaps at once, by the sweeper itself
        allowed = 1 + sum(name not in over for over in way.over) + (name == way.shot)
        if int(status.get("attempt", 1)) > allowed:
            way.wrong.append(f"{name} was begun {status['attempt']} times, {allowed} at most can be right")
    _same_store(way, results)


def _same_store(way: Way, results: dict[str, Any]) -> None:
    """Every run read the one teacher that was there, and its stages lie in this search's store."""
    teachers = set()
    for name in results:
        for stage in (files.read_json(way.study / name / "result.json") or {})["stages"]:
            if not (way.home / "multirun" / ".store" / stage["key"] / "meta.json").exists():
                way.wrong.append(f"{name}: stage {stage['name']} is not in this store")
            if stage["name"] == "teacher":
                teachers.add((stage["key"], stage["reused"]))
    if results and (len(teachers) != 1 or not next(iter(teachers))[1]):
        way.wrong.append(f"{len(teachers)} teachers, or one that was built again: {sorted(teachers)}")


def _table(ways: list[Way]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"python -m kdexp +experiment=tune, {ways[0].trials} trials", title_justify="left")
    table.add_column("search")
    for title in ("seconds", "cut off", "complete", "pruned", "failed", "trials", "runs", "begun", "wrong", "best"):
        table.add_column(title, justify="right")
    for way in ways:
        trials, runs = way.found(), way.runs()
        states = Counter(trial.state.name for trial in trials)
        values = [trial.value for trial in trials if trial.state.name == "COMPLETE"]
        begun = sum(int(status.get("attempt", 1)) for status in runs.values())
        counts = (*(states[name] for name in ENDED), len({t.number for t in trials}), len(runs), begun, len(way.wrong))
        best = f"{100 * max(values):.1f}" if values else "–"
        table.add_row(way.name, f"{way.seconds:.0f}", str(way.cut), *map(str, counts), best)
    Console(width=120).print(table)
    for way in ways:
        for text in way.wrong:
            print(f"{way.name}: {text}")


if __name__ == "__main__":
    sys.exit(main())
