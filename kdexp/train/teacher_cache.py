"""What a frozen teacher says about training examples, on disk: made once, looked up by example id.

Kept is what objectives ask for (:func:`kdexp.models.capture.wanted`, and a head's outputs where none are stored beside
the teacher's weights), one file a feature, under everything that decides its numbers: the teacher's weights, the data,
how they are cut, which examples are used, the arithmetic. So epochs, seeds, inits, objectives, runs and processes share
it. Sequences are ragged: real positions only, padded with zeros when they are looked up; a vector where nobody reads
more than the first position. Numbers are kept as the run computes, fp32 or bf16; a head's outputs always as fp32.

**A run's numbers depend on its configuration, never on what is in the cache.** Whether a phase's features are stored is
decided by the setting, the sizes of model and data, and the size of the machine, not by what is free or there already;
what does not fit on the disk is an error. And what is stored is a function of its key: a pass over the examples sorted
by length, in the same batches of 64 whoever makes it and whichever part is made again, each feature in the same way
whatever else is asked for. Looked-up and live features differ by the rounding that padding brings, as compiled and
plain steps do, so the setting is no part of a run's identity.

It is filled before training begins, by whoever needs it first. Others wait: if they ran the teacher meanwhile, their
numbers would depend on who came first.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import nn

from kdexp.common import locks, machine
from kdexp.common.files import Interrupted
from kdexp.common.machine import FeatureBudget, amount
from kdexp.config.identity import digest
from kdexp.heads.batch import Batch, Features
from kdexp.models import capture, precision
from kdexp.store import features as disk
from kdexp.store.features import FeatureFile, Writing
from kdexp.train.batching import evaluation_batches
from kdexp.train.context import RunContext
from kdexp.train.evaluate import EVALUATION_BATCH
from kdexp.train.question import Question, obstacle
from kdexp.train.ragged import Layout, Stored
from kdexp.train.teachers import CachedTeacher

log = logging.getLogger("kdexp")

SCHEMA = 1
"""Raise it when the meaning of the files changes, or the way their numbers are computed."""


@dataclass(frozen=True)
class Answer:
    """How a phase hears its teacher.

    Attributes:
        teacher: what it says is looked up; None = it must be run on every batch.
        why: for people.
        size: bytes of features on disk.
    """

    teacher: CachedTeacher | None
    why: str
    size: int = 0

    @property
    def facts(self) -> dict[str, Any]:
        """What a result keeps of it."""
        return {"cached": self.teacher is not None, "bytes": self.size, "why": self.why}


def look_up(question: Question, kept: CachedTeacher | None, context: RunContext) -> Answer:
    """Return what a teacher says as it is looked up, stored now where it is missing; or why it must be run.

    Args:
        kept: the head's outputs, if they are stored beside the teacher's weights.
        context: the machinery.

    Raises:
        ValueError: its features are to be stored, and the disk has no room for them.
        TimeoutError: another process has been storing them for too long.
        Interrupted: the run was asked to stop meanwhile.
    """
    question = replace(question, outputs=question.outputs and kept is None)
    asked, beside = context.config.runtime.teacher_cache, {} if kept is None else kept.features
    why = obstacle(question, asked)
    if why is None and not question.names:
        return Answer(CachedTeacher(beside), "its answers are looked up")
    budget = machine.decide_teacher_cache(asked, str(context.device), context.cache)
    opened = why or TeacherCache(question, context).open(budget)
    if isinstance(opened, str):
        return Answer(None, f"it is run on every batch: {opened}")
    stored, size = opened
    return Answer(CachedTeacher(beside, stored), f"its features are looked up ({amount(size)} on disk)", size)


@dataclass(frozen=True)
class Kept:
    """What there is of a feature on disk.

    Attributes:
        layout: how it lies there.
        file: its numbers, held open.
        sums: the checksum of each part; None = missing or damaged.
    """

    layout: Layout
    file: BinaryIO
    sums: list[str | None]

    @property
    def whole(self) -> bool:
        """Nothing is missing."""
        return None not in self.sums


class TeacherCache:
    """The features of one teacher on some examples.

    Args:
        question: what is asked.
        context: the machinery.
    """

    def __init__(self, question: Question, context: RunContext) -> None:
        assert question.data is not None
        self.question, self.context, self.data = question, context, question.data
        self.batches = evaluation_batches(self.data.costs[question.rows], EVALUATION_BATCH)
        self.order = question.rows[np.concatenate(self.batches)]
        self.lengths = self.data.costs[self.order]
        self.root = disk.folder(context.cache.parent)
        self.place = self.root / digest(self._identity())[:32]

    def _identity(self) -> dict[str, Any]:
        versions = machine.versions()
        return {
            "schema": SCHEMA,
            "teacher": dict(self.question.identity or {}),
            "rows": hashlib.sha256(self.question.rows.astype("<i8").tobytes()).hexdigest(),
            "batch": EVALUATION_BATCH,
            "dtype": self.context.dtype,
            "device": self.context.device.type,
            "versions": [versions["torch"], versions["transformers"]],
        }

    def _file(self, name: str) -> FeatureFile:
        first = self.question.reads.get(name) == "first"
        return FeatureFile.of(self.place, f"{name}@first" if first else name)

    def open(self, budget: FeatureBudget) -> tuple[dict[str, Stored], int] | str:
        """Return the features by name, made where they are missing, and their bytes; or why they are not stored.

        Raises:
            ValueError: they are to be stored, and the disk has no room for them.
            TimeoutError: another process has been making them for too long.
            Interrupted: the run was asked to stop.
        """
        ready = {name: kept for name in self.question.names if (kept := self._kept(name)) is not None and kept.whole}
        lacking = [name for name in self.question.names if name not in ready]
        with ExitStack() as held:
            for name in lacking:  # in one order everywhere, so that no two processes wait for each other
                held.enter_context(self._held(name))
            there = {name: self._kept(name, tell=True) for name in lacking}
            ready |= {name: one for name, one in there.items() if one is not None and one.whole}
            missing = {name: there[name] for name in lacking if name not in ready}
            if missing:
                refused = self._make(missing, {name: one.layout for name, one in ready.items()}, budget)
                if refused:
                    return refused
                ready |= self._read_back(missing)
        need = self._need({name: one.layout for name, one in ready.items()})
        refused = budget.refuses(need, len(self.order))
        if refused:
            return refused
        device = self.context.device
        resident = device.type != "cpu"
        return {
            name: Stored(one.file, one.layout, self.order, self.lengths, device, resident)
            for name, one in ready.items()
        }, need

    def _held(self, name: str) -> Any:
        def busy() -> str:
            holder = (self._file(name).read() or {}).get("holder", "another process")
            what = f"the teacher's {name} for {self.question.stage} is being stored by {holder}"
            self.context.say(f"{what}; waiting")
            return what

        timeout = self.context.config.runtime.lock_timeout_s
        return locks.hold(self._file(name).lock, timeout, self.context.stop, busy)

    def _need(self, layouts: Mapping[str, Layout]) -> int:
        return sum(int(layout.bounds(self.lengths)[-1]) for layout in layouts.values())

    def _part_bounds(self, layout: Layout) -> list[int]:
        ends = np.cumsum([0, *(len(batch) for batch in self.batches)])
        return [int(bound) for bound in layout.bounds(self.lengths)[ends]]

    def _kept(self, name: str, tell: bool = False) -> Kept | None:
        """Return what there is of a feature, every checksum compared; None if there is nothing.

        Args:
            tell: name what is damaged in the log.
        """
        feature = self._file(name)
        note = feature.read()
        if note is None:
            return None
        layout = Layout.from_dict(note["about"])
        file = feature.hold() if note["bounds"] == self._part_bounds(layout) else None
        if file is None:
            return None
        sums = list(note["sha256"])
        damaged = feature.damaged(note, file)
        for part in damaged:
            sums[part] = None
        if damaged and tell:
            log.warning(
                "%s is damaged: %d of %d parts are not what was written; they are made anew",
                feature.values, len(damaged), len(sums),
            )  # fmt: skip
        return Kept(layout, file, sums)

    def _make(
        self, missing: Mapping[str, Kept | None], beside: Mapping[str, Layout], budget: FeatureBudget
    ) -> str | None:
        """Make features whose locks are held, or say why they are not stored.

        Args:
            missing: what there is of each.
            beside: layouts of the features that are asked for and there.
        """
        model = self.question.load()
        layouts = self._layouts(model, list(missing))
        if isinstance(layouts, str):
            return layouts
        refused = budget.refuses(self._need({**beside, **layouts}), len(self.order))
        if refused:
            return refused
        self._make_room(layouts, budget)
        with ExitStack() as opened:
            writing = {}
            for name, layout in layouts.items():
                kept = missing[name]
                sums = kept.sums if kept is not None and kept.layout == layout else None
                one = Writing(self._file(name), self._part_bounds(layout), vars(layout), sums)
                writing[name] = opened.enter_context(one)
            precision.lower(model, self.context.cast)
            self._fill(model, layouts, writing)
        return None

    def _read_back(self, names: Iterable[str]) -> dict[str, Kept]:
        found = {name: kept for name in names if (kept := self._kept(name, tell=True)) is not None and kept.whole}
        lost = sorted(set(names) - set(found))
        if lost:
            raise OSError(f"{self.place}: {', '.join(lost)} cannot be read back as written: is the disk sound?")
        return found

    def _make_room(self, layouts: Mapping[str, Layout], budget: FeatureBudget) -> None:
        """Keep all features within their bound, and refuse what the disk cannot hold.

        Raises:
            ValueError: with both numbers.
        """
        begun = sum(f.values.stat().st_size for f in map(self._file, layouts) if f.values.exists())
        need = self._need(layouts) - begun
        freed = disk.make_room(self.root, need, budget.total)
        if freed:
            self.context.say(f"teachers' features that were used longest ago made room: {amount(freed)}")
        self.place.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.place).free
        if need > free:
            raise ValueError(
                f"the teacher's features for {self.question.stage} need {amount(need)}, and {self.root} has "
                f"{amount(free)} free: make room (python -m kdexp store gc), or set runtime.teacher_cache=off or to a "
                "size below that."
            )

    # --- what the teacher says ------------------------------------------------------------------------------------

    @torch.no_grad()
    def _ask(self, model: nn.Module, batch: Batch, names: Iterable[str]) -> Features:
        """Run the teacher on a batch. The head's outputs come from a pass of their own, as they do where only they are
        asked for: a pass that need not give whole sequences may round otherwise.
        """
        question, cast_to = self.question, self.context.cast
        want = frozenset(name for name in names if name in question.reads)
        features: Features = {}
        with torch.autocast(batch.device.type, dtype=cast_to, enabled=cast_to is not None):
            if want:
                features |= capture.forward(model, question.head, batch, want, answers=False)
            if set(names) - want:
                features |= capture.forward(model, question.head, batch)
        return {n: features[n][:, :1] if question.reads.get(n) == "first" else features[n] for n in names}

    def _layouts(self, model: nn.Module, names: list[str]) -> dict[str, Layout] | str:
        """Look at a small batch, and at the same batch cut by a position: which axes are as long as the inputs?

        Returns:
            The layouts, or why a feature cannot be looked up by example.
        """
        question = self.question
        pair = self.order[[0, -1]] if len(self.order) > 1 else self.order
        whole = self.data.collate(pair).to(self.context.device)
        capture.probe(model, question.head, whole, frozenset(question.reads), "teacher")
        model.requires_grad_(False).eval()
        short, width = whole, 0 if whole.mask is None else whole.mask.shape[1]
        if whole.mask is not None and width > 1:
            inputs = {n: x[:, :-1] if x.dim() > 1 and x.shape[1] == width else x for n, x in whole.inputs.items()}
            short = Batch(inputs, whole.mask[:, :-1], whole.labels, whole.index)
        found = {}
        one, two = self._ask(model, whole, names), self._ask(model, short, names)
        for name in names:
            sizes = one[name].shape, two[name].shape
            axes = tuple(axis for axis, (a, b) in enumerate(zip(*sizes, strict=False)) if a != b)
            if len(sizes[0]) != len(sizes[1]) or sizes[0][0] != len(pair) or 0 in axes or len(axes) > 2:
                return f"{name} has no entry an example (its shape is {tuple(sizes[0])} for {len(pair)} examples)"
            rest = tuple(size for axis, size in enumerate(sizes[0]) if axis and axis not in axes)
            found[name] = Layout(axes, rest, "fp32" if name not in question.reads else self.context.dtype)
        return found

    def _fill(self, model: nn.Module, layouts: Mapping[str, Layout], writing: Mapping[str, Writing]) -> None:
        """Run the teacher on every batch of which a part is missing.

        Raises:
            Interrupted: the run was asked to stop; what is written stays, and the same command continues there.
            ValueError: the task's costs are not the lengths of its inputs.
        """
        question, context = self.question, self.context
        todo = {
            number: asked
            for number in range(len(self.batches))
            if (asked := [name for name, one in writing.items() if one.note["sha256"][number] is None])
        }
        need = amount(self._need(layouts))
        context.say(
            f"storing what the teacher says for {question.stage}: {', '.join(layouts)} of {len(self.order)} examples, "
            f"{need} in {self.place}" + (f"; {len(self.batches) - len(todo)} of {len(self.batches)} batches are there"
            if len(todo) < len(self.batches) else "")
        )  # fmt: skip
        for done, (number, asked) in enumerate(todo.items(), 1):
            if context.stop():
                raise Interrupted("stopped while storing what the teacher says; the same command continues there")
            rows = question.rows[self.batches[number]]
            batch = self.data.collate(rows)
            self._check_lengths(batch, self.data.costs[rows])
            batch = batch.to(context.device)
            for name, values in self._ask(model, batch, asked).items():
                writing[name].write(number, layouts[name].pack(values, batch.mask))
            context.show(f"{question.stage}: teacher", None, done, len(todo), len(rows))

    def _check_lengths(self, batch: Batch, costs: np.ndarray) -> None:
        if batch.mask is None:
            return
        width = batch.mask.shape[1]
        if not np.array_equal(batch.mask.numpy() != 0, np.arange(width) < costs[:, None]):
            raise ValueError(
                f"stage {self.question.stage}: the costs of the task's examples are not the lengths of their inputs, "
                "padded at the end, so what the teacher says cannot be looked up: set runtime.teacher_cache=off."
            )
