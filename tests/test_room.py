"""A disk that is full: one sentence with the place, what is needed and what to do; no leftovers; the command goes on.

The disk is a real one: a small file system in memory, where this user may mount one.
"""

from __future__ import annotations

import errno
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdexp.common import files
from kdexp.common.files import DiskFull
from kdexp.store.stage import Stage
from kdexp.store.store import Store
from tests.test_runs import results, toy

MB = 1_000_000


class Disk:
    """A file system of its own: its folder, and how large it is made."""

    def __init__(self, folder: Path):
        self.folder = folder

    def mount(self, size: int) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", self.folder], check=True)

    def resize(self, size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", self.folder], check=True)

    def fill(self, leave: int) -> Path:
        """Write a file of zeros that leaves so many bytes."""
        path = self.folder / "zeros"
        path.write_bytes(bytes(max(0, files.free(self.folder) - leave)))
        return path


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "small disk"
    folder.mkdir()
    made = Disk(folder)
    try:
        made.mount(4 * MB)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this user cannot mount a file system in memory")
    yield made
    subprocess.run(["umount", "-l", folder], check=True)


SENTENCE = (
    r"the disk is full: (\S+)(?: needs [\d.]+ \w+, and)? [\d.]+ \w+ are free in (.+?)\. Make room there .*gc.*KDEXP"
)


def test_the_sentence_has_place_bytes_and_remedy(disk: Disk):
    disk.fill(leave=0)
    with pytest.raises(DiskFull, match=SENTENCE) as caught:
        files.write_text(disk.folder / "some" / "text.txt", "x" * 5000)
    assert "text.txt needs 5000 bytes, and 0 bytes are free in" in str(caught.value)
    assert not list(disk.folder.glob("some/*"))


def test_libraries_say_it_in_their_own_words(disk: Disk):
    import numpy as np
    from safetensors.numpy import save_file

    disk.fill(leave=100_000)
    tensors = {"a": np.zeros(100_000)}
    with (
        pytest.raises(DiskFull, match="weights needs 800000 bytes"),
        files.fresh(disk.folder / "weights", 800_000) as to,
    ):
        save_file(tensors, to)
    with (
        pytest.raises(DiskFull, match="the disk is full: x"),
        files.fresh_folder(disk.folder / "x") as to,
    ):
        np.save(to / "a.npy", tensors["a"])
    assert [path.name for path in disk.folder.iterdir()] == ["zeros"]


def test_other_errors_stay_what_they_are(tmp_path: Path):
    with pytest.raises(PermissionError), files.room(tmp_path / "x"):
        raise PermissionError(errno.EACCES, "no")
    with pytest.raises(ValueError, match="other"), files.room(tmp_path / "x"):
        raise ValueError("other")


def test_gc_makes_room_on_a_full_disk(disk: Disk):
    """Its own record cannot be written there before something is gone."""
    store = Store(disk.folder / "store")
    kept = store.build(Stage("teacher", "a", {}, shared=True), lambda work: _weights(work, 300_000), print)[0]
    other = store.build(Stage("student", "a", {"n": 1}), lambda work: _weights(work, 1_000_000), print)[0]
    disk.fill(leave=0)
    store.drop_weights(other.folder.name)
    assert store.get(other.folder.name).meta["dropped"] == ["weights"] and store.get(kept.folder.name).whole
    assert files.free(disk.folder) >= 900_000


def _weights(work: Path, size: int) -> dict:
    (work / "weights").write_bytes(bytes(size))
    return {}


def run_out(room: int, disk: Disk, kdexp, words: list[str]) -> Path:
    """Run on a disk with so much room, then with enough; returns the student's weights."""
    zeros = disk.fill(leave=room)
    done = kdexp(words, cwd=disk.folder)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(SENTENCE, done.stderr) and "Traceback" not in done.stderr and "Logging error" not in done.stderr
    assert str(disk.folder) in done.stderr
    assert not [path for path in disk.folder.rglob("*") if path.name.endswith(".tmp")]
    zeros.unlink()
    again = kdexp(words, cwd=disk.folder)
    assert again.returncode == 0, again.stderr
    (result,) = results(disk.folder, "adhoc").values()
    return Path(result["student"]["weights"]) / "model.safetensors"


def test_a_run_without_room_says_so_in_one_sentence_and_goes_on_later(
    disk: Disk, kdexp, tiny_bert_dir: Path, tiny_csv_task: Path
):
    words = ["objective=kd", "runtime.checkpoint_s=0", *toy(tiny_bert_dir, tiny_csv_task)]
    assert run_out(250_000, disk, kdexp, words).is_file()


@pytest.mark.slow
def test_wherever_the_disk_fills_the_student_is_the_same(
    disk: Disk, kdexp, tiny_bert_dir: Path, tiny_csv_task: Path, tmp_path: Path
):
    words = ["objective=kd", "runtime.checkpoint_s=0", *toy(tiny_bert_dir, tiny_csv_task)]
    (tmp_path / "whole").mkdir()
    assert kdexp(words, cwd=tmp_path / "whole").returncode == 0
    (result,) = results(tmp_path / "whole", "adhoc").values()
    expected = (Path(result["student"]["weights"]) / "model.safetensors").read_bytes()
    for room in (0, 4_000, 60_000, 150_000, 400_000, 700_000):
        assert run_out(room, disk, kdexp, words).read_bytes() == expected, room
        for path in disk.folder.iterdir():
            shutil.rmtree(path)
