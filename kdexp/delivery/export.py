"""A student brought into every form that is asked for: each checked against the plain one before it counts.

A form's folder appears when its answers on validation have been compared with the plain model's and scored; one that
fails leaves nothing and stops no other.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kdexp.common import files, machine
from kdexp.common.problems import ConfigError
from kdexp.delivery import form as forms
from kdexp.delivery import timing
from kdexp.delivery.form import Form
from kdexp.delivery.forms import RECORD
from kdexp.delivery.forms import names as form_names
from kdexp.delivery.intervals import interval
from kdexp.delivery.subject import Subject, answers
from kdexp.models import plain
from kdexp.run import predict

PLAIN = "pytorch"
MOST = {1: 200, 32: 40}
"""Batches that are timed, by examples a batch: texts of validation with their real lengths."""


@dataclass
class Row:
    """A line of the table: one model in one form.

    Attributes:
        who: ``student``, ``teacher``, or the student's size.
        form: its form.
        score: on validation, a fraction; ``low`` and ``high`` its interval over new examples.
        gap: score minus the plain form's, with its interval, example by example; None for the plain one.
        apart: largest difference of two outputs from the plain form's.
        size: bytes of the files that hold the weights.
        times: as :func:`kdexp.delivery.timing.measure` returns them; {} = not timed.
        untimed: why it could not be timed; '' = it was, or nobody asked.
        failed: why there is no such form; '' = there is.
    """

    who: str
    form: str
    score: float = 0.0
    low: float = 0.0
    high: float = 0.0
    gap: tuple[float, float, float] | None = None
    apart: float = 0.0
    size: int = 0
    times: dict[str, Any] = field(default_factory=dict)
    untimed: str = ""
    failed: str = ""


def problems(subjects: Sequence[Subject], names: Sequence[str], out: Path) -> list[str]:
    """Return everything that stops a delivery, as sentences; nothing is loaded or written."""
    wrong = [text for subject in subjects for text in predict.problems(subject.asked)]
    wrong += [f"forms={name} {lacking}" for name in names if (lacking := forms.form(name).missing())]
    wrong += subjects[0].task.problems(subjects[0].root)
    wrong += _place_problems(out)
    wrong += [] if wrong else [text for one in subjects for text in _row_problems(one)]
    if not wrong:
        weights = [path for one in subjects if one.place is not None for path in forms.form(PLAIN).files(one.folder)]
        need = (len(names) + 1) * sum(path.stat().st_size for path in weights)
        free = shutil.disk_usage(out.parent).free
        if need > free:
            wrong.append(
                f"out={out} needs about {need / 2**20:.0f} MiB and {free / 2**20:.0f} MiB are free: ask for fewer "
                "forms, or choose another disk."
            )
    return wrong


def _place_problems(out: Path) -> list[str]:
    if out.exists() and not out.is_dir():
        return [f"out={out} is a file: name a folder."]
    if out.exists() and any(out.iterdir()):
        return [f"out={out} is there already and not empty: name another folder."]
    if not out.parent.is_dir():
        return [f"out={out}: there is no folder {out.parent}."]
    place = out if out.exists() else out.parent
    return [] if os.access(place, os.W_OK) else [f"out={out}: nothing may be written to {place}: name another folder."]


def _row_problems(subject: Subject) -> list[str]:
    """Say why rows, or the tokenizer that reads them, cannot be used."""
    try:
        count = len(next(iter(subject.data["validation"].truths.values())))
    except ConfigError as error:
        return error.problems
    except ValueError as error:
        return [f"{subject.folder}: {error}"]
    return [] if count > 1 else [f"validation of task={subject.task.name} has one row: a score takes more."]


def deliver(
    subjects: Sequence[Subject],
    names: Sequence[str],
    out: Path,
    threads: int,
    timed: bool,
    say: Callable[[str], None] = print,
) -> list[Row]:
    """Write the students' forms below a folder, and return the table's rows, model by model.

    Args:
        subjects: the models; their ``place`` says which of them are kept.
        names: forms, beside the plain one.
        out: the folder; it gets one folder a form.
        threads: of each form when it is timed.
        timed: measure latency and memory.
        say: told what is done.

    Raises:
        ConfigError: everything that stops it.
    """
    chosen = [PLAIN, *(name for name in form_names() if name in names and name != PLAIN)]
    wrong = problems(subjects, chosen, out)
    if wrong:
        raise ConfigError(wrong)
    empty = not out.exists()
    out.mkdir(exist_ok=True)
    try:
        return [row for subject in subjects for row in _delivered(subject, chosen, out, threads if timed else 0, say)]
    finally:
        if empty and not any(out.iterdir()):  # nothing could be made
            out.rmdir()


def _delivered(
    subject: Subject, names: Sequence[str], out: Path, threads: int, say: Callable[[str], None]
) -> list[Row]:
    """Make, check and time a model's forms, and put them where they belong."""
    with tempfile.TemporaryDirectory(dir=out, prefix=".") as place:
        made = _forms(subject, names, Path(place), say)
        _time(subject, made, Path(place), threads, say)
        if subject.place is not None:
            (out / subject.place).mkdir(exist_ok=True)
            for row in made:
                if not row.failed and forms.form(row.form).files(Path(place) / row.form):
                    (Path(place) / row.form).rename(out / subject.place / row.form)
    return made


def _forms(subject: Subject, names: Sequence[str], place: Path, say: Callable[[str], None]) -> list[Row]:
    """Make and check every form of a model."""
    task, split, rows = subject.task, subject.data["validation"], list[Row]()
    known: dict[str, Any] = {}
    for name in _ordered(names):
        say(f"{subject.who}: {name}")
        form, folder, row = forms.form(name), place / name, Row(subject.who, name)
        try:
            _write(form, subject, folder, place)
            got, flat = answers(form.load(folder, task.head, 1), split, task)
            if not np.isfinite(flat).all():
                raise ValueError(
                    f"{int((~np.isfinite(flat)).sum())} of its {flat.size} outputs on validation are not finite"
                )
        except (ValueError, RuntimeError, OSError) as error:
            row.failed = _why(error, place)
            shutil.rmtree(folder, ignore_errors=True)
            rows.append(row)
            if name == PLAIN:
                raise ValueError(f"{subject.folder}: {row.failed}") from error
            continue
        row.score = task.evaluate(got, split.truths)[task.metric]
        row.low, row.high = interval(task, got, split.truths)
        if name == PLAIN:
            known = {"answers": got, "flat": flat, "score": row.score}
        else:
            row.gap = (row.score - known["score"], *interval(task, got, split.truths, known["answers"]))
            row.apart = float(np.abs(flat - known["flat"]).max())
        row.size = sum(path.stat().st_size for path in form.files(folder))
        rows.append(row)
    return [row for name in names for row in rows if row.form == name]


def _why(error: BaseException, place: Path) -> str:
    """Return in one sentence why a form could not be made."""
    cause: BaseException | None = error
    while cause is not None:
        if files.is_full(cause):
            room = files.said(files.free(place))
            return f"the disk is full: {room} are free in {place.parent}. Make room there, or deliver to another disk."
        cause = cause.__cause__
    return " ".join(str(error).split())[:500]


def _ordered(names: Sequence[str]) -> list[str]:
    """Return forms, each after the one that it is made of."""
    done = list[str]()

    def add(name: str) -> None:
        before = forms.form(name).made_of
        if before and before not in done:
            add(before)
        if name not in done:
            done.append(name)

    for name in names:
        add(name)
    return done


def _write(form: Form, subject: Subject, folder: Path, place: Path) -> None:
    """Write a form: what it needs beside the weights, then itself."""
    folder.mkdir()
    shutil.copy2(subject.folder / "config.json", folder / "config.json")
    subject.task.save_preprocessor(predict.context(subject.asked), folder)
    split = "train" if form.calibrated else "validation"
    source = place / form.made_of if form.made_of else subject.folder
    model = plain.load(subject.folder, subject.task.head)
    form.write(model, subject.task.head, folder, source, partial(subject.sample, split))
    record = {
        "form": folder.name,
        "task": subject.settings,
        "files": {path.name: files.checksum(path) for path in sorted(folder.iterdir())},
    }
    files.write_record(folder / RECORD, record)


def _time(subject: Subject, rows: Sequence[Row], place: Path, threads: int, say: Callable[[str], None]) -> None:
    """Time every form of a model that there is, one after another."""
    if not threads:
        return
    batches = {
        size: [
            {name: value.numpy() for name, value in batch.inputs.items()}
            for batch, _ in zip(subject.sample("validation", size, full=True), range(most), strict=False)
        ]
        for size, most in MOST.items()
    }
    timing.save(place / "texts.npz", batches)
    for row in rows:
        if not row.failed:
            say(f"{subject.who}: timing {row.form}")
            try:
                row.times = timing.measure(row.form, place / row.form, subject.settings, place / "texts.npz", threads)
            except RuntimeError as error:
                row.untimed = str(error)
    (place / "texts.npz").unlink()


def stated(threads: int, notes: Sequence[str] = ()) -> dict[str, Any]:
    """Return where the table was measured, and what has to be known of the rows."""
    return {
        "notes": list(notes),
        "hardware": machine.hardware("cpu"),
        "threads": threads,
        "versions": machine.versions(),
    }
