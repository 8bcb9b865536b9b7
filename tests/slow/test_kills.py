"""A study that is killed again and again: nothing is lost, nothing repeated, and the bits are an undisturbed one's.

``KDEXP_KILLS`` says how many kills (12 unless it is set), ``KDEXP_KILL_SEED`` which.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest

from kdexp.common import sqlite
from tests.slow.studies import Study

KILLS = int(os.environ.get("KDEXP_KILLS", "12"))
SEED = int(os.environ.get("KDEXP_KILL_SEED", "1"))
ROUND = 8
"""Kills of one study, before it is left alone."""
GROUP = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def _kill(process: subprocess.Popen[str], chance: random.Random) -> str:
    """Kill something of a study that is under way; returns what, '' if it was over."""
    kind = chance.choice(["group", "group", "launcher", "worker", "worker"])
    number = chance.choice(GROUP)
    with suppress(psutil.NoSuchProcess, ProcessLookupError):
        if process.poll() is not None:
            return ""
        if kind == "group":
            os.killpg(process.pid, number)
        elif kind == "launcher":
            os.kill(process.pid, number)
        else:
            below = psutil.Process(process.pid).children(recursive=True)
            below = [child for child in below if os.getpgid(child.pid) == process.pid]
            if not below:
                return ""
            os.kill(chance.choice(below).pid, chance.choice((signal.SIGKILL, signal.SIGTERM)))
            return f"{kind}"
        return f"{kind} {number.name}"
    return ""


def _disturbed(study: Study, kills: int, longest: float, chance: random.Random) -> Counter[str]:
    """Start a study until it has been killed so often, and check after every kill that what was done is kept."""
    done: Counter[str] = Counter()
    finished: dict[str, str] = {}
    while done.total() < kills:
        process = study.start()
        while process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0, longest))
            what = _kill(process, chance)
            done[what] += bool(what)
            if what.startswith(("group", "launcher")):
                with suppress(subprocess.TimeoutExpired):  # a signal may come while nobody can hear it
                    process.wait(90)
        for name, result in study.results().items():
            assert finished.setdefault(name, result["finished"]) == result["finished"], f"{name} was repeated"
        assert finished.keys() <= study.results().keys(), "a finished run was lost"
        if len(finished) == 8:
            break
    return done


@pytest.mark.slow
@pytest.mark.timeout(3600 * 3)
def test_nothing_is_lost_or_repeated_and_the_bits_are_equal(tiny_bert_dir: Path, tiny_csv_task: Path, tmp_path: Path):
    whole = Study.toy(tmp_path / "whole", tiny_bert_dir, tiny_csv_task)
    began = time.monotonic()
    code, said = whole.finish()
    assert code == 0, said
    took, expected, chance = time.monotonic() - began, whole.facts(), random.Random(SEED)
    assert len(expected) == 8 and all(fact["curve"] for fact in expected.values())

    kinds: Counter[str] = Counter()
    number = 0
    while kinds.total() < KILLS:
        number += 1
        study = Study.toy(tmp_path / f"round{number}", tiny_bert_dir, tiny_csv_task)
        kinds += _disturbed(study, min(ROUND, KILLS - kinds.total()), took * 0.35, chance)
        before = {name: result["finished"] for name, result in study.results().items()}
        time.sleep(3)  # workers of a killed launcher take a moment to notice
        code, said = study.finish()
        if code:  # a worker that was killed last has marked its run as failed
            code, said = study.finish()
        assert code == 0, said
        assert study.facts() == expected, f"round {number}"
        assert before.items() <= {name: result["finished"] for name, result in study.results().items()}.items()
        assert study.leftovers() == []
        assert "Traceback" not in (study.folder / "output.txt").read_text()
        _shown_once(study)
        print(f"{kinds.total()} kills so far, {dict(kinds)}", flush=True)


def _shown_once(study: Study) -> None:
    """MLflow has every run once, as finished, and no point of it twice."""
    with closing(sqlite.read_only(study.folder / "multirun" / "mlflow.db")) as connection:
        runs = connection.execute(
            "select r.name, r.status, count(*) from runs r join tags k on k.run_uuid = r.run_uuid "
            "where k.key = 'kdexp.kind' and k.value = 'run' group by r.name, r.status"
        ).fetchall()
        twice = connection.execute(
            "select run_uuid, key, step, count(*) from metrics where key like 'distill%' group by 1, 2, 3 "
            "having count(*) > 1"
        ).fetchall()
    assert sorted(runs) == sorted((name, "FINISHED", 1) for name in study.results())
    assert twice == []
