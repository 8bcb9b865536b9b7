"""What teachers' features would take on disk, before anything is run: for ``dry=true``.

Nothing is loaded but texts and a tokenizer, and no network is asked. Sizes are those that
:mod:`kdexp.train.teacher_cache` would find, but for outputs of named modules, whose shapes only a model tells.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdexp.common import files, machine
from kdexp.common.registry import RESERVED, build, target
from kdexp.config.resolve import source_folder
from kdexp.config.schema import Config, Recipe
from kdexp.heads.base import Head
from kdexp.models.capture import MODULE
from kdexp.objectives.base import Objective
from kdexp.store.stage import Stage
from kdexp.tasks.base import UNLABELLED, Dataset, Joined
from kdexp.train import loop
from kdexp.train.context import RunContext
from kdexp.train.question import PRETRAINED, Question, obstacle, reads
from kdexp.train.ragged import Layout

Points = Iterable[tuple[Config, Sequence[Stage]]]
"""Configurations with their stages, whose keys need not be the store's."""


@dataclass
class Line:
    """What is said of one teacher on one task.

    Attributes:
        sizes: bytes of each feature that would be stored.
        live: why a phase would run its teacher on every batch, by phase.
        unknown: features whose size only a model tells.
        problem: why nothing can be said.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    live: dict[str, str] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    problem: str = ""


def lines(points: Points) -> list[str]:
    """Return a line for each teacher on each task, and one for all together; [] if no phase has a teacher."""
    found: dict[tuple[str, str], Line] = {}
    seen: set[str] = set()
    with contextlib.ExitStack() as aside:
        data = _Texts(aside)
        for run, stages in points:
            for stage in stages:
                config = stage.config or run
                phase = _phase(config, stage)
                if phase is not None and phase not in seen:
                    seen.add(phase)
                    line = found.setdefault((str(config.task["name"]), config.teacher.name), Line())
                    _add(line, config, stage, phase, data)
    said = [f"features {task}, {teacher}: {_sentence(line)}" for (task, teacher), line in found.items()]
    total = sum(sum(line.sizes.values()) for line in found.values())
    return said if len(said) < 2 else [*said, f"features in all: {machine.amount(total)}"]


class Live:
    """Tells which phases of runs ask their teacher about every batch; remembers what it has looked at.

    Texts are looked at only where their number decides.

    Args:
        looking: nothing shall be written; else texts that are not prepared yet are, for the runs that need them.
    """

    def __init__(self, looking: bool) -> None:
        self.looking = looking
        self._known: dict[str, bool] = {}

    def phases(self, config: Config, stages: Sequence[Stage]) -> set[str]:
        """Return the names of such phases of a run; none also where only the network could tell."""
        named = [(stage, phase) for stage in stages if (phase := _phase(config, stage)) is not None]
        for stage, phase in named:
            if phase not in self._known:
                self._known[phase] = self._asks(config, stage, phase)
        return {stage.name for stage, phase in named if self._known[phase]}

    def _asks(self, config: Config, stage: Stage, phase: str) -> bool:
        if config.runtime.teacher_cache == "off" or not config.teacher.evaluation_mode:
            return any(target(spec).uses_teacher for spec in stage.settings["terms"].values())
        line = Line()
        with contextlib.ExitStack() as aside:
            _add(line, config, stage, phase, _Texts(aside if self.looking else None))
        return bool(line.live)


def _sentence(line: Line) -> str:
    if line.problem:
        return f"size unknown ({line.problem})"
    size = sum(line.sizes.values())
    parts = [f"{machine.amount(size)} of what the teacher says would be stored" if size else "nothing would be stored"]
    if line.unknown:
        parts.append(f"and {', '.join(sorted(line.unknown))}, of a size that only the model tells")
    for why in dict.fromkeys(line.live.values()):
        stages = [stage for stage, other in line.live.items() if other == why]
        parts.append(f"{_families(stages)} {'runs' if len(stages) == 1 else 'run'} it on every batch: {why}")
    return "; ".join(parts)


def _families(stages: list[str]) -> str:
    """Name stages for people: several of one method (``pro_kd.part1.checkpoint1``) by the method and their number."""
    methods: dict[str, list[str]] = {}
    for stage in stages:
        methods.setdefault(stage.partition(".")[0], []).append(stage)
    return ", ".join(
        name
        for method, own in methods.items()
        for name in ([f"{len(own)} stages of {method}"] if len(own) > 2 else own)
    )


def _phase(config: Config, stage: Stage) -> str | None:
    """Return what decides a phase's features, as a text; None for a stage that no teacher teaches."""
    settings = stage.settings
    if "terms" not in settings or ("teacher" not in stage.parents and "teaches" not in settings):
        return None
    recipe, teacher = settings["recipe"], stage.parents.get("teacher")
    runtime = config.runtime
    return json.dumps(
        [
            stage.name, settings["terms"], recipe["max_length"], recipe["examples"], settings.get("teaches"),
            None if teacher is None else teacher.key, config.task, config.teacher.source, config.data.root,
            config.data.heldout, runtime.teacher_cache, runtime.device, runtime.dtype,
        ],
        default=str,
    )  # fmt: skip


def _add(line: Line, config: Config, stage: Stage, phase: str, data: _Texts) -> None:
    objectives = [_objective(spec) for spec in stage.settings["terms"].values()]
    objectives = [objective for objective in objectives if objective.uses_teacher]
    if not objectives or line.problem:
        return
    if not target(config.task).fixed:
        line.live[stage.name] = "the examples differ from batch to batch"
        return
    recipe = Recipe.model_validate(stage.settings["recipe"])
    device = machine.decide_device(config.runtime.device)
    dtype = machine.decide_dtype(config.runtime.dtype, config.runtime.device)
    try:
        train = data.of(config, recipe.max_length, device, dtype, "unlabelled" in stage.settings)
    except (ValueError, OSError) as error:
        line.problem = str(error)
        return
    outputs = any(objective.answers for objective in objectives)
    head = build(config.task).head
    rows, teaches = loop.subset(len(train), recipe.examples), stage.settings.get("teaches")
    pretrained, learned = teaches == PRETRAINED, config.teacher.recipe
    kept = loop.subset(len(train), learned.examples if teaches else None)  # a checkpoint's answers: what it was taught
    by_row = bool({"examples", "vectors"} & head.abilities)
    beside = by_row and not pretrained and recipe.max_length == learned.max_length
    beside = beside and bool(np.isin(rows, kept).all())
    question = Question(
        stage.name, {"weights": PRETRAINED if pretrained else ""}, _never, head,
        reads(objectives), outputs and not beside, train, rows, config.teacher.evaluation_mode,
    )  # fmt: skip
    budget = machine.decide_teacher_cache(config.runtime.teacher_cache, device, Path(config.runtime.store))
    lengths = train.costs[rows]
    width, answers = int(config.teacher.hidden_size or 0), _answers(head)
    sizes = {
        name: int(_layout(name, question.reads.get(name), width, answers, dtype).bounds(lengths)[-1])
        for name in question.names
        if not name.startswith(MODULE)
    }
    why = obstacle(question, config.runtime.teacher_cache) or budget.refuses(sum(sizes.values()), len(rows))
    if why is not None:
        line.live[stage.name] = why
        return
    keys = json.loads(phase)[2:]  # the same features of the same teacher on the same examples are stored once
    line.sizes |= {json.dumps([keys, name, question.reads.get(name)]): size for name, size in sizes.items()}
    line.unknown |= {name for name in question.names if name.startswith(MODULE)}


def _never() -> Any:
    raise AssertionError("nothing is loaded for a forecast")


def _objective(spec: dict[str, Any]) -> Objective:
    objective: Objective = build(spec, (*RESERVED, "pairs"))
    objective.pairs = [tuple(pair) for pair in spec["pairs"]]
    return objective


def _answers(head: Head) -> Layout:
    """Return how each of a head's outputs lies on disk: a row of logits an example, or a position."""
    return Layout((1,) if "positions" in head.abilities else (), (head.width // len(head.names),), "fp32")


def _layout(name: str, reads: str | None, width: int, answers: Layout, dtype: str) -> Layout:
    if reads is None:  # the head's
        return answers
    return Layout((), (width,), dtype) if reads == "first" else Layout((1,), (width,), dtype)


class _Texts:
    """Training splits, each once.

    Args:
        aside: what is made is written into a cache that is thrown away when this is left; None = into the runs' own.
    """

    def __init__(self, aside: contextlib.ExitStack | None) -> None:
        self.aside, self.known, self.caches = aside, dict[str, Dataset](), dict[Path, Path]()

    def of(self, config: Config, length: int, device: str, dtype: str, further: bool = False) -> Dataset:
        """Return a configuration's training split.

        Args:
            further: with the rows that the teacher labels.

        Raises:
            ValueError, OSError: it cannot be read, or only from the network.
        """
        cache = Path(config.runtime.store).expanduser().absolute() / "cache"
        name = json.dumps(
            [config.task, config.data.root, config.data.heldout, config.teacher.source, length, further],
            default=str,
        )
        if name not in self.known:
            teacher, task = config.teacher, build(config.task)
            if source_folder(teacher.source, teacher.commit) is None or not task.here(config.data.root, cache):
                raise ValueError("the network is not asked before a run")
            if self.aside is None:
                self.caches[cache] = cache
            elif cache not in self.caches:
                self.caches[cache] = self.aside.enter_context(files.scratch(cache))
            lent = self.caches[cache]
            context = RunContext(config, torch.device(device), dtype, 1, lent, say=lambda line: None)
            splits = context.data(length, teacher)
            self.known[name] = Joined(splits["train"], splits[UNLABELLED]) if further else splits["train"]
        return self.known[name]
