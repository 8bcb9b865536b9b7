"""Files that kdexp writes and reads back: whole or absent, for everybody; damage of any kind is named and mended."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from kdexp.common import files, results
from kdexp.common.files import Damaged
from kdexp.common.status import STATUS, mend, state, write_status
from tests.conftest import program_environment
from tests.damage import DAMAGE

SHAPE = {"numbers": list, "name": str}
VALUE = {"name": "größe", "numbers": [1, 2.5, float("nan")], "inner": {"b": None, "a": True}}


# --- records ---------------------------------------------------------------------------------------------------------


def test_a_record_comes_back_as_it_was(tmp_path: Path):
    files.write_record(tmp_path / "r.json", VALUE)
    again = files.read_record(tmp_path / "r.json", SHAPE)
    assert repr(again) == repr(VALUE) and list(tmp_path.iterdir()) == [tmp_path / "r.json"]
    assert files.read_record(tmp_path / "none.json", SHAPE) is None


@pytest.mark.parametrize("damage", DAMAGE)
def test_any_damage_is_named(damage: str, tmp_path: Path):
    path = tmp_path / "r.json"
    files.write_record(path, VALUE)
    DAMAGE[damage](path)
    with pytest.raises(Damaged, match=r"r.json is damaged \(.+\)"):
        files.read_record(path, SHAPE)
    assert files.read_note(path) == {}


def test_every_flipped_bit_of_a_record_is_noticed(tmp_path: Path):
    path = tmp_path / "r.json"
    files.write_record(path, {"name": "x", "numbers": [0.125, 17]})
    content, value = path.read_bytes(), files.read_record(path, SHAPE)
    for place in range(len(content)):
        for bit in range(8):
            changed = bytearray(content)
            changed[place] ^= 1 << bit
            path.write_bytes(changed)
            try:
                again = files.read_record(path, SHAPE)  # a bit of white space, or of the checksum's own name
                assert {key: again[key] for key in value} == value
            except Damaged:
                continue


def test_an_edited_record_is_noticed_and_an_older_kdexps_is_not_refused(tmp_path: Path):
    path = tmp_path / "r.json"
    files.write_record(path, {"name": "x", "numbers": [50]})
    path.write_text(path.read_text().replace("50", "51"))
    with pytest.raises(Damaged, match="its checksum is not that of its content"):
        files.read_record(path, SHAPE)
    old = {"name": "x", "numbers": [51]}
    path.write_text(json.dumps(old))
    assert files.read_record(path, SHAPE) == old
    with pytest.raises(Damaged, match="it has no checksum"):
        files.read_record(path, SHAPE, strict=True)


# --- a run's own files ----------------------------------------------------------------------------------------------


def run_folder(root: Path, finished: bool = True) -> Path:
    folder = root / "run"
    write_status(folder, {"state": "finished" if finished else "failed", "attempt": 3})
    if finished:
        results.write(folder, {**{key: {} for key in results.SHAPE}, "scores": {"validation": {"accuracy": 0.5}}})
    return folder


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_result_is_set_aside_and_the_run_is_to_do_again(damage: str, tmp_path: Path):
    folder = run_folder(tmp_path)
    assert state(folder) == "finished" and mend(folder) == []
    DAMAGE[damage](folder / results.RESULT)
    assert state(folder) == "damaged"
    (sentence,) = mend(folder)
    assert str(folder / results.RESULT) in sentence and "result.json.damaged" in sentence
    assert state(folder) == "interrupted" and (folder / "result.json.damaged").is_file()


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_status_takes_nothing_from_a_result(damage: str, tmp_path: Path):
    folder = run_folder(tmp_path)
    DAMAGE[damage](folder / STATUS)
    assert state(folder) == "finished"
    (folder / results.RESULT).unlink()
    assert state(folder) == "damaged"
    (sentence,) = mend(folder)
    assert str(folder / STATUS) in sentence and state(folder) == "new"


def test_either_file_may_be_deleted(tmp_path: Path):
    folder = run_folder(tmp_path)
    (folder / STATUS).unlink()
    assert state(folder) == "finished"
    write_status(folder, {"state": "finished"})
    (folder / results.RESULT).unlink()
    assert state(folder) == "interrupted"


# --- whole or absent, for everybody ---------------------------------------------------------------------------------


def test_a_file_that_could_not_be_written_is_not_there_at_all(tmp_path: Path):
    (tmp_path / "kept.txt").write_text("old")
    with suppress(RuntimeError), files.fresh(tmp_path / "kept.txt") as aside:
        aside.write_text("half")
        raise RuntimeError
    with suppress(RuntimeError), files.fresh_folder(tmp_path / "folder") as aside:
        (aside / "half").write_text("half")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"] and (tmp_path / "kept.txt").read_text() == "old"


@pytest.mark.parametrize(("umask", "mode"), [(0o002, 0o664), (0o022, 0o644), (0o077, 0o600)])
def test_permissions_are_the_users_choice_whoever_writes(umask: int, mode: int, tmp_path: Path):
    """safetensors, for one, keeps everybody else out of what it writes."""
    code = (
        "import numpy, pathlib; from safetensors.numpy import save_file; from kdexp.common import files\n"
        "place = pathlib.Path('.')\n"
        "files.write_text(place / 'text', 'x')\n"
        "with files.fresh(place / 'weights') as aside: save_file({'a': numpy.zeros(3)}, aside)\n"
        "with files.fresh_folder(place / 'folder') as aside: save_file({'a': numpy.zeros(3)}, aside / 'weights')\n"
    )
    environment = program_environment({})
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, umask=umask, env=environment, check=False)
    assert done.returncode == 0
    modes = {str(p.relative_to(tmp_path)): stat.S_IMODE(p.stat().st_mode) for p in tmp_path.rglob("*")}
    assert modes == {"text": mode, "weights": mode, "folder": 0o777 & ~umask, "folder/weights": mode}
