"""Random damage to the files of a study and its store: the same command gives the same results, or names the file.

What belongs to a finished run is not read by it; there ``store verify`` names the file, and who needs it mends it.

``KDEXP_CORRUPTIONS`` says how many rounds (6 unless it is set), ``KDEXP_CORRUPTION_SEED`` which. Not damaged are logs
and lines of metrics (a line that is none is skipped, a digit is not checked), MLflow's own files, and locks.
"""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from tests.slow.studies import Study

ROUNDS = int(os.environ.get("KDEXP_CORRUPTIONS", "6"))
SEED = int(os.environ.get("KDEXP_CORRUPTION_SEED", "1"))
UNCHECKED = ("run.log", "metrics.jsonl")


def _candidates(study: Study) -> list[Path]:
    paths = [*study.runs.rglob("*"), *study.store.rglob("*")]
    checked = [p for p in paths if p.is_file() and p.suffix not in (".lock", ".use") and p.name not in UNCHECKED]
    return sorted(p for p in checked if p.stat().st_size and not {".hydra", "inductor"} & set(p.parts))


def _damage(path: Path, chance: random.Random) -> str:
    content = bytearray(path.read_bytes())
    place, kind = chance.randrange(len(content)), chance.choice(["flip", "flip", "cut", "empty", "zeros", "gone"])
    if kind == "flip":
        content[place] ^= 1 << chance.randrange(8)
    elif kind == "cut":
        del content[place:]
    elif kind == "empty":
        content.clear()
    elif kind == "zeros":
        content[place:] = bytes(len(content) - place)
    path.unlink()
    if kind != "gone":
        path.write_bytes(content)
    return f"{kind} {path}"


@pytest.mark.slow
@pytest.mark.timeout(3600 * 2)
def test_damage_is_mended_or_named(tiny_bert_dir: Path, tiny_csv_task: Path, tmp_path: Path):
    study = Study.toy(tmp_path / "study", tiny_bert_dir, tiny_csv_task)
    code, said = study.finish()
    assert code == 0, said
    expected, chance = study.facts(), random.Random(SEED)
    shutil.copytree(study.folder / "multirun", tmp_path / "kept")
    for number in range(ROUNDS):
        shutil.rmtree(study.folder / "multirun")
        shutil.copytree(tmp_path / "kept", study.folder / "multirun")
        for path in study.runs.glob("*/result.json"):
            if chance.random() < 0.5:  # so that stages are read again
                path.unlink()
        damaged = [_damage(path, chance) for path in chance.sample(_candidates(study), chance.randint(1, 8))]
        code, said = study.finish()
        assert "Traceback" not in said, said
        if code:
            assert any(line.partition(" ")[2] in said for line in damaged), (damaged, said)
            continue
        bad, told = study.verify()
        if bad:  # in stages of finished runs, which nobody has read: named by who looks, mended when they are needed
            assert any(line.partition(" ")[2] in told for line in damaged), (damaged, told)
            for path in study.runs.glob("*/result.json"):
                path.unlink()
            code, said = study.finish()
            assert code == 0, said
        assert study.facts() == expected, (number, damaged)
        print(f"round {number}: {damaged} -> {code}", flush=True)
