"""The public face of a stage: what an action is given.

An action is a function ``action(phase) -> Summary`` named by a stage. :class:`Phase` offers what actions have in
common, each step by itself; an action puts them together::

    def train_student(phase: Phase) -> Summary:
        model = phase.model()                        # the student with its first weights
        student = phase.student(model)               # with objectives and optimiser, at its saved progress
        phase.train(student, phase.teacher(student))
        phase.save(model)
        phase.measure(model)
        return phase.summary

Whatever a step learns goes into :attr:`Phase.summary`, which becomes the stage's record in the store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from kdexp.common import files, machine
from kdexp.common.registry import RESERVED, build
from kdexp.config.schema import Recipe
from kdexp.heads.base import Head
from kdexp.heads.batch import Batch, Features, Predictions
from kdexp.heads.classification import LABEL
from kdexp.inits import copying, narrowing
from kdexp.inits.narrow import Narrow
from kdexp.models import build as models
from kdexp.models import capture, precision, reach, source, vocabulary
from kdexp.models.families.base import family
from kdexp.objectives.base import Context, Objective
from kdexp.store.stage import Stage, order
from kdexp.store.store import Finished
from kdexp.tasks.base import UNLABELLED, Dataset, Goal, Joined, Task
from kdexp.tasks.labels import agreement, check_answers, check_labels
from kdexp.train import answered, checkpoint, evaluate, loop, optim, reading, shared, teacher_cache, teachers
from kdexp.train.batching import multiple_of, padding_share
from kdexp.train.compiling import GRAPHS, compiled_step, compiled_teacher, flops, new_pass
from kdexp.train.context import RunContext
from kdexp.train.question import PRETRAINED, Question, reads
from kdexp.train.step import Step, Term, run_step
from kdexp.train.student import Student
from kdexp.train.teachers import CachedTeacher, LiveTeacher, Teacher

SPECIMENS = 1000
"""Training examples that a finished classifier is asked, to see whether its classes are the task's."""

FINETUNE = {"hard": {"_target_": "kdexp.objectives.finetune.Finetune", "weight": 1.0, "pairs": []}}
"""The task's own loss alone."""

HANDED_ON = "optimizer.safetensors"
"""What a part of one schedule leaves for the next one, beside the student's weights."""


@dataclass
class Summary:
    """What is worth keeping of a finished stage; None = this stage has nothing of the kind.

    Attributes:
        steps, examples: updates, and examples seen by them.
        seconds: of training, over all attempts; ``wall_seconds`` of this attempt.
        examples_per_s, peak_memory_mb: how fast, how large.
        tflops_per_s, mfu: estimated operations a second (6 a weight of the trained layers and real token, 2 a weight of
            a teacher that is run), and their share of what the device's maker states; None = not known.
        padding: share of padding among the positions of the first epoch.
        vocabulary: rows of the word embedding that were trained (``used``), ``of`` how many; None = all.
        best: epoch, step and scores of the best evaluation; {} = nothing selected.
        history: one entry an evaluation.
        stopped_early: patience ended it.
        init: where the first weights came from.
        mapping: matched layers by term.
        learned_parts: sizes of parts that were learned beside the student.
        scores, majority: metrics by split, of the model and of the trivial answer.
        parameters, layers, effective_layers, hidden_size, size_bytes: of the model that was saved.
        more: what only this kind of stage knows; its keys stand beside the others in the record and win over them.
    """

    steps: int | None = None
    examples: int | None = None
    seconds: float | None = None
    examples_per_s: float | None = None
    peak_memory_mb: float | None = None
    tflops_per_s: float | None = None
    mfu: float | None = None
    padding: float | None = None
    vocabulary: dict[str, int] | None = None
    wall_seconds: float | None = None
    best: dict[str, Any] | None = None
    history: list[dict[str, Any]] | None = None
    stopped_early: bool | None = None
    init: dict[str, Any] | None = None
    mapping: dict[str, list[Any]] | None = None
    learned_parts: dict[str, int] | None = None
    scores: dict[str, dict[str, float]] | None = None
    majority: dict[str, dict[str, float]] | None = None
    parameters: int | None = None
    layers: int | None = None
    effective_layers: int | None = None
    hidden_size: int | None = None
    size_bytes: int | None = None
    more: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON has it: what is there, by name."""
        known = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "more"}
        return {name: value for name, value in known.items() if value is not None} | self.more


class Phase:
    """One stage being carried out.

    Args:
        stage: what to do: its ``settings`` are all that decides the result.
        inputs: its parents' results, by role.
        work: the folder that becomes the stage's result.
        context: the machinery.

    Attributes:
        goal: what the student answers and how it is judged: the run's task, unless an action sets another one.
        summary: filled by the methods below.
    """

    def __init__(self, stage: Stage, inputs: Mapping[str, Finished], work: Path, context: RunContext) -> None:
        self.stage, self.inputs, self.work, self.context = stage, inputs, work, context
        self.settings, self.config = stage.settings, context.config
        stated = self.settings.get("recipe")
        self.recipe = self.config.teacher.recipe if stated is None else Recipe.model_validate(stated)
        self.task: Task = context.task()
        self.goal: Goal = self.task
        self.summary = Summary()
        self._data: dict[str, Dataset] | None = None
        self._heard: dict[str, Dataset] | None = None  # the same, as the teacher reads them
        self._judged: tuple[Dataset, Any, Predictions] | None = None  # split, weights' stamp, answers
        self._answered: list[Predictions] = []  # of each evaluation of this attempt
        self._copied_from: tuple[Path | None, nn.Module | None] = None, None  # the teacher's folder, and what it holds

    # --- data -----------------------------------------------------------------------------------------------------

    def data(self) -> dict[str, Dataset]:
        """Return the task's splits, for inputs as long as the recipe allows, as the model in training reads them.

        Rows that the teacher has labelled are among those of ``train`` where the stage learns from them.
        """
        if self._data is None:
            reader = self.config.teacher if self._of_teacher else None
            self._data = self._with_labels(dict(self.context.data(self.recipe.max_length, reader)))
        return self._data

    def heard(self) -> dict[str, Dataset]:
        """Return the task's splits as the teacher reads them: :meth:`data`, unless the student has a tokenizer too."""
        if self._heard is None:
            self._heard = self.data() if not self._reading.joined else self._as_teacher()
        return self._heard

    def _as_teacher(self) -> dict[str, Dataset]:
        return self._with_labels(dict(self.context.data(self.recipe.max_length, self.config.teacher)))

    @property
    def _of_teacher(self) -> bool:
        """The teacher itself is what this stage makes."""
        return self.stage.role == "teacher"

    @property
    def _reading(self) -> reading.Reading:
        return reading.Reading(self.config.teacher) if self._of_teacher else reading.of(self.config)

    def _with_labels(self, splits: dict[str, Dataset]) -> dict[str, Dataset]:
        """Give splits that nobody has labelled the labels that the teacher has given them."""
        further, asks, teacher = splits.pop(UNLABELLED, None), "unlabelled" in self.settings, self.folder("teacher")
        for name, split in splits.items():
            if not split.labelled and teacher is not None:
                splits[name] = answered.read(teacher, name, split)
        if further is not None and asks:
            labels = self.folder("labels")
            assert labels is not None
            splits["train"] = Joined(splits["train"], answered.read(labels, UNLABELLED, further))
        return splits

    def label_further(self, model: nn.Module) -> None:
        """Keep the labels that a teacher gives the rows that nobody else has labelled, beside labelled ones."""
        split = self.context.data(self.settings["max_length"], self.config.teacher)[UNLABELLED]
        self.context.say(f"the teacher labels {len(split)} inputs that have no labels")
        made = answered.ask(model, split, self.task.head, self.context)
        answered.keep(self.work, UNLABELLED, made)
        self.summary.examples = len(split)

    def _label_own(self, model: nn.Module) -> None:
        """Give the task's splits that have no labels those of this teacher, and keep them."""
        data = self.data()
        for name, split in data.items():
            if not split.labelled:
                made = answered.ask(model, split, self.task.head, self.context)
                answered.keep(self.work, name, made)
                data[name] = made

    # --- models ---------------------------------------------------------------------------------------------------

    def folder(self, role: str) -> Path | None:
        """Return the folder of a parent's result, or None if the stage has no such parent."""
        return self.inputs[role].folder if role in self.inputs else None

    def model(self) -> nn.Module:
        """Build the student, on the device, with its first weights: those of the phase before, or its init."""
        student = models.build_student(
            source.of_student(self.config),
            self.config.student,
            self.goal.head,
            self.recipe.dropout,
            self.settings["seed"],
        )
        self.summary.init = self._first_weights(student)
        return student.to(self.context.device)

    def _first_weights(self, student: nn.Module) -> dict[str, Any]:
        teacher = self.config.teacher
        if "start" in self.inputs:
            models.load_weights(student, self.inputs["start"].folder)
            return self.inputs["start"].summary["init"]
        if "init" in self.inputs:
            parent = self.inputs["init"]
            return copying.adopt(student, parent.folder) | {"layers": parent.summary["init"]["layers"]}
        init, copied = build(self.config.init), None
        own, head = source.own(self.config), self.goal.head
        if own is not None:
            speaks = not (head.of_classifier or head.weights)  # a language model's
            taken = copying.take(init, student, models.load_pretrained(own, head), speaks)
            return taken | {"origin": self.settings["init"]["origin"]}
        if init.copies and init.source == "pretrained":
            copied = models.load_pretrained(teacher, head)
        elif init.copies:
            copied = models.load_teacher(teacher, head, self.folder("teacher"))
            if self.goal is self.task:
                self._copied_from = self.folder("teacher"), copied
        if isinstance(init, Narrow):
            assert copied is not None
            return narrowing.apply(init, student, copied, self._some_texts(getattr(init, "calibration", 0)))
        return copying.apply(init, student, copied)

    def _some_texts(self, count: int) -> list[Batch]:
        """Return batches of so many training examples, evenly spaced, for an init that looks at what a teacher does."""
        rows, train = self.rows()[:: max(1, len(self.rows()) // max(count, 1))][:count], self.data()["train"]
        return [train.collate(rows[i : i + 32]) for i in range(0, len(rows), 32)]

    def teacher_parameters(self) -> int:
        """Count the teacher's parameters; nothing is loaded."""
        return models.count(self.config.teacher, self.task.head)

    def teacher_model(self, folder: Path | None = None) -> nn.Module:
        """Load the teacher, on the device: from a stage's result, or as it is before fine-tuning on the task."""
        return self._loaded_teacher(folder).to(self.context.device)

    def _loaded_teacher(self, folder: Path | None) -> nn.Module:
        teacher, head = self.config.teacher, self.task.head
        return models.load_teacher(teacher, head, folder) if folder else models.load_pretrained(teacher, head)

    def _listened(self, folder: Path | None) -> nn.Module:
        """Load the teacher to listen to, on the device, or its part of it.

        The one that the student's weights were copied from is there already. A phase has drawn its random weights by
        then, and training seeds what it draws.
        """
        ranks, context = self.context.ranks, self.context
        if self.config.runtime.shard_teacher and ranks.size > 1:
            model = self._loaded_teacher(folder).requires_grad_(False)
            precision.lower(model, context.cast)  # before its weights are spread
            return ranks.shard(model, context.device)
        if folder is None:
            return self.teacher_model()
        there, copied = self._copied_from
        self._copied_from = None, None
        if copied is None or there != folder:
            copied = models.load_teacher(self.config.teacher, self.task.head, folder, draw=False)
        return copied.to(context.device)

    def student(
        self,
        model: nn.Module,
        terms: dict[str, dict[str, Any]] | None = None,
        data: Mapping[str, Dataset] | None = None,
        beside: nn.Module | None = None,
        make: Callable[..., Student] = Student,
        used_rows: bool = False,
    ) -> Student:
        """Put a model together with its objectives and optimiser, at its saved progress.

        Args:
            model: what is trained.
            terms: weighted objectives; None = the stage's.
            data: splits to train and select on; None = the task's.
            beside: a module that is trained (where it has gradients) and checkpointed with the student, never exported.
            make: the class, or a function with its signature.
            used_rows: until :meth:`train` is over, the model has only the rows of its word embedding that the data use;
                for an action that looks at its weights afterwards only.
        """
        data = data or self.data()
        if used_rows:
            self._narrow(model, data)
        specs = self.settings["terms"] if terms is None else terms
        built = [self._term(name, spec, model, data) for name, spec in specs.items()]
        step = Step(model, self.goal.head, built, self.context.cast)
        self._note_reach("student", model, self.goal.head, step.want, step.answers)
        device, runtime = self.context.device, self.config.runtime
        work = flops(model, self.config, data["train"], self.recipe)
        asked = runtime.compile, runtime.compile_mode
        decided = machine.decide_compile(*asked, str(device), work, self.updates(data), self.context.threads)
        decided |= {"mode": runtime.compile_mode} if decided["decided"] else {}
        if decided["decided"] and runtime.compile_mode == GRAPHS and device.type != "cuda":
            raise ValueError(
                f"runtime.compile_mode={GRAPHS} records CUDA graphs, and this run computes on {device}: use "
                "runtime.compile_mode=default."
            )
        self.context.facts.setdefault("compile", {})[self.stage.name] = decided
        if decided["decided"]:
            self.context.say(f"{self.stage.name}: its step is compiled before the first update ({decided['why']})")
        student = make(
            step,
            self.recipe,
            self.work,
            self._judge(data),
            self.goal.metric,
            lambda step, epoch, values: self.context.write(self.stage.name, step, epoch, values),
            compiled_step(str(device), runtime.compile_mode) if decided["decided"] else run_step,
            beside,
        )
        parts = {name: p.numel() for name, p in student.objectives.named_parameters()}
        self.summary.learned_parts = parts
        if self._part[0] and not student.progress.step:
            checkpoint.take_over(self.inputs["start"].folder / HANDED_ON, student.parts, student.optimizer)
        if self.context.ranks.size > 1:
            student.join(self.context.ranks)
        return student

    @property
    def _part(self) -> tuple[int, int]:
        """Which part (from 0) of how many this stage is: parts share one schedule and the optimiser's moments."""
        part, parts = self.settings.get("span", (0, 1))
        return part, parts

    def _narrow(self, model: nn.Module, data: Mapping[str, Dataset]) -> None:
        """Take from a model the rows of its word embedding that no split names, where all splits know theirs.

        Only with AdamW: what its decay alone does to the other rows is one factor (:func:`kdexp.train.optim.decay`).
        """
        ids = [split.vocabulary() for split in data.values()]
        known = [some for some in ids if some is not None] if self.recipe.optimiser == "adamw" else []
        if len(known) == len(ids) and vocabulary.narrow(model, np.unique(np.concatenate(known))):
            self.summary.vocabulary = vocabulary.rows(model)

    def _term(self, name: str, spec: dict[str, Any], model: nn.Module, data: Mapping[str, Dataset]) -> Term:
        """Build and set up one objective."""
        objective: Objective = build(spec, (*RESERVED, "pairs"))
        big, train = self.config.teacher, data["train"]
        assert big.num_layers and big.hidden_size and big.num_heads  # checked before anything was loaded
        objective.setup(
            Context(
                student=models.shape(model),
                teacher=family(str(big.family)).sizes(big.num_layers, big.hidden_size, big.num_heads),
                pairs=[tuple(pair) for pair in spec["pairs"]],
                head=self.goal.head,
                num_train=len(train),
                targets=train.targets,
            )
        )
        objective.inherit({role: parent.folder for role, parent in self.inputs.items()})
        return Term(name, spec["weight"], objective)

    def _judge(self, data: Mapping[str, Dataset]) -> Callable[[nn.Module], dict[str, float]] | None:
        """Return what scores the student on the split that selects; None if nothing selects."""
        selection = self.settings["selection"]
        if selection == "last" or self.recipe.keep != "best":
            return None
        goal, split, context, answered = self.goal, data[selection], self.context, list[Predictions]()

        def judge(model: nn.Module) -> dict[str, float]:
            answered.append(evaluate.predict(model, split, goal.head, context))
            return goal.evaluate(answered[-1], split.truths)

        self._answered = answered
        return judge

    def teacher(self, student: Student, data: Mapping[str, Dataset] | None = None) -> Teacher | None:
        """Return who teaches: nobody, what a teacher has said (stored now, if need be), or the model itself.

        The stage's ``teaches`` names other weights than the fine-tuned ones: ``pretrained``, or a folder inside the
        teacher's result. The log says once, and the result keeps, which of them it is and why.

        Args:
            student: says which features its objectives want.
            data: splits that it will be trained on; None = the task's. Stored answers belong to the task's own.
        """
        listening = [objective for objective in student.step.listeners() if objective.uses_teacher]
        teaches, finetuned = self.settings.get("teaches"), self.folder("teacher")
        folder = None if finetuned is None or teaches == "pretrained" else finetuned / (teaches or "")
        if not listening or (folder is None and teaches is None):
            return None
        train, context, head = (data or self.data())["train"], self.context, self.task.head
        theirs = train is self.data()["train"]
        if theirs:
            train = self.heard()["train"]
        question = Question(
            stage=self.stage.name,
            identity=self._identity(folder),
            load=lambda: self._listened(folder),
            head=head,
            reads=reads(listening),
            outputs=any(objective.answers for objective in listening),
            data=train if theirs else None,
            rows=self.rows() if theirs else np.arange(0),
            quiet=self.config.teacher.evaluation_mode,
        )
        kept = None
        if folder is not None and theirs and question.outputs:
            kept = CachedTeacher.open(folder, head.names, self.recipe.max_length, context.device, self.rows())
        answer = context.ranks.in_turn(lambda: teacher_cache.look_up(question, kept, context))
        context.facts.setdefault("teacher", {})[self.stage.name] = answer.facts
        context.say(f"teacher of {self.stage.name}: {answer.facts['why']}")
        if answer.teacher is not None:
            return self._joined(answer.teacher) if answer.teacher.stored else answer.teacher
        run, compiled = capture.forward, context.facts.get("compile", {}).get(self.stage.name, {})
        if compiled.get("decided") and context.device.type == "cuda":  # on a CPU it stays as it is: it gains little
            run = compiled_teacher(str(context.device), self.config.runtime.compile_mode)
        together = self._together(question, folder, run)
        model = question.load() if together is None else together.model
        want, answers = frozenset(question.reads), question.outputs
        made_up = sorted(getattr(model, "made_up", ()))
        if answers and teaches == PRETRAINED and made_up:
            raise ValueError(
                f"stage {self.stage.name}: an objective reads what the pretrained teacher answers, but its files have "
                f"no {', '.join(made_up[:3])}: choose one on hidden states or attention, or another teacher."
            )
        with torch.autocast(context.device.type, dtype=context.cast, enabled=context.cast is not None):
            capture.probe(model, head, self._specimen(train), want, "teacher", answers)
        self._note_reach("teacher", model, head, want, answers)
        if together is not None:
            return together.seat(want, answers, len(order([self.stage])))
        return self._joined(LiveTeacher(model, head, want, context.cast, question.quiet, answers, run))

    def _joined(self, teacher: Teacher) -> Teacher:
        """Return a teacher as a student of another tokenizer hears it."""
        if not self._reading.joined:
            return teacher
        return reading.Joined(teacher, self.heard()["train"], self._reading.alike)

    def _together(
        self, question: Question, folder: Path | None, run: Callable[..., Features]
    ) -> shared.SharedTeacher | None:
        """Return the live teacher that runs of this process ask together about this phase's batches; None = alone.

        Args:
            folder: of its weights; None = the pretrained ones.
            run: runs it, perhaps compiled.
        """
        turns, config = self.context.turns, self.config
        if turns is None or question.data is None or self._reading.joined:
            return None
        alike = {
            "folder": str(folder), "teacher": config.teacher.model_dump(), "task": config.task,
            "data": config.data.model_dump(), "recipe": shared.stream(self.recipe), "seed": self.settings["seed"],
            "dtype": self.context.dtype, "compiled": run is not capture.forward,
        }  # fmt: skip
        if self._part[1] > 1:  # then the numbers of updates count those of the parts before
            alike |= {"span": self._part, "updates": self.updates()}
        self.context.facts["teacher"][self.stage.name]["cohort"] = len(turns)
        self.context.say(f"teacher of {self.stage.name}: its pass is shared by a cohort of {len(turns)} runs")
        return shared.SharedTeacher.of(turns, alike, question, self.context.cast, run)

    def _identity(self, folder: Path | None) -> dict[str, Any] | None:
        """Return what decides a teacher's features, but for examples and arithmetic; None if it is not known.

        Args:
            folder: of its weights; None = the pretrained ones.
        """
        deciding = ("origin", "data", "heldout", "task", "teacher")
        if not set(deciding) <= self.settings.keys():
            return None
        weights = None
        if folder is None and source.pinned(self.settings["origin"]):
            weights = PRETRAINED
        elif folder is not None:
            parent = self.inputs["teacher"]
            weights = parent.meta["files"].get(str((folder / "model.safetensors").relative_to(parent.folder)))
        settings = {name: self.settings[name] for name in (*deciding, "unlabelled") if name in self.settings}
        return None if weights is None else {**settings, "weights": weights, "max_length": self.recipe.max_length}

    def _note_reach(self, who: str, model: nn.Module, head: Head, want: frozenset[str], answers: bool) -> None:
        """Note for the result how much of a model a forward pass of this stage runs."""
        noted = self.context.facts.setdefault("reach", {}).setdefault(self.stage.name, {})
        noted[who] = reach.describe(model, head, want, answers)

    # --- work -----------------------------------------------------------------------------------------------------

    def train(
        self,
        student: Student,
        teacher: Teacher | None = None,
        data: Mapping[str, Dataset] | None = None,
        after_update: Callable[[Student, int], None] | None = None,
    ) -> None:
        """Train a student to its end and go back to its best weights, if the recipe keeps those.

        Args:
            student: from :meth:`student`.
            teacher: from :meth:`teacher`, or any function from a batch to features.
            data: splits; None = the task's.
            after_update: called with (student, updates done) after every update: the place to keep files on the way.

        Raises:
            Interrupted: the run was asked to stop; a checkpoint is on disk.
            Diverged: a loss, gradient or weight is not finite.
        """
        train, context, runtime = (data or self.data())["train"], self.context, self.config.runtime
        self._copied_from = None, None
        who = reading.asked(teacher)
        if isinstance(who, CachedTeacher) and train is not self.data()["train"]:
            raise ValueError(
                f"stage {self.stage.name}: the teacher's stored answers belong to the task's own examples, and the "
                "stage trains on others: pass the same data to Phase.teacher."
            )
        if student.step.want:
            step = student.step
            capture.probe(step.model, step.head, self._specimen(train), step.want, "student", step.answers)
        began = time.monotonic()
        settings = loop.LoopSettings(
            self.recipe,
            self.settings["seed"],
            context.device,
            span=self._part,
            pad_multiple=multiple_of(context.device.type),
            log_every=runtime.log_every,
            checkpoint_s=runtime.checkpoint_s,
            stop=context.stop,
            saved=lambda: context.saved(self.stage.key),
            **({"turn": teacher.turn} if isinstance(teacher, shared.Seat) else {}),
            after_update=after_update or (lambda student, step: None),
            show=lambda student, step, total, examples: context.show(self.stage.name, student, step, total, examples),
            ranks=context.ranks,
            new_pass=new_pass(runtime.compile_mode),
        )
        loop.train(student, teacher, train, settings)
        if isinstance(teacher, shared.Seat):
            teacher.leave()
        student.log(student.progress.epoch - 1)
        if self._part[0] + 1 < self._part[1]:
            checkpoint.hand_on(self.work / HANDED_ON, student.parts, student.optimizer)
        student.finish()
        progress, summary = student.progress, self.summary
        best = self.recipe.keep == "best" and progress.best
        steps, total = progress.best["step"] if best else progress.step, self.updates(data)
        vocabulary.widen(student.model, optim.decay(steps, total, self.recipe, settings.span))
        if best:
            split = (data or self.data())[self.settings["selection"]]
            attempt = progress.history[len(progress.history) - len(self._answered) :]
            done = [evaluated["step"] for evaluated in attempt]
            if progress.best["step"] in done:  # not before an interruption
                answers = self._answered[done.index(progress.best["step"])]
                self._judged = split, evaluate.stamp(student.model), answers
        summary.steps, summary.examples = progress.step, progress.step * self.recipe.batch_size
        if self._specimen(train).mask is not None:
            costs = train.costs[loop.subset(len(train), self.recipe.examples)]
            summary.padding = round(padding_share(costs, self.recipe, settings.seed, settings.pad_multiple), 4)
        summary.seconds = round(progress.seconds, 3)
        summary.examples_per_s = round(summary.examples / max(progress.seconds, 1e-9), 1)
        share = progress.step / max(1, total)
        live = (
            teacher.paid / max(1, teacher.asked)
            if isinstance(teacher, shared.Seat)
            else float(isinstance(who, LiveTeacher))
        )
        self._note_speed(student.model, train, live, share, progress.seconds)
        summary.peak_memory_mb = evaluate.peak_memory_mb(context.device)
        summary.wall_seconds = round(time.monotonic() - began, 3)
        summary.best, summary.history = progress.best, progress.history
        summary.stopped_early = progress.stopped

    def _note_speed(self, model: nn.Module, train: Dataset, live: float, share: float, seconds: float) -> None:
        """Note how much of the device's arithmetic a training has used.

        Args:
            live: share of the batches that the teacher was run on in this run's time.
            share: of the recipe's updates, those that were made.
        """
        context = self.context
        work = share * flops(model, self.config, train, self.recipe, live)
        speed = work / max(seconds, 1e-9)
        peak = machine.peak_flops(str(context.device), context.dtype)
        self.summary.tflops_per_s = float(f"{speed / 1e12:.4g}")
        self.summary.mfu = None if peak is None else round(speed / (peak * context.ranks.size), 4)

    def finetune_teacher(self, after_update: Callable[[Student, int], None] | None = None) -> nn.Module:
        """Fine-tune the teacher on the task, unless it is a classifier already; measure it, save it, keep its answers.

        Args:
            after_update: as in :meth:`train`.

        Raises:
            ValueError: it is a classifier already, and its labels are not the task's, by name or by its answers.
        """
        group, task, context = self.config.teacher, self.task, self.context
        train = self.data()["train"]
        torch.manual_seed(self.settings.get("seed", 0))
        if not group.finetune:
            names = models.configuration(group).id2label or {}
            wrong = check_labels({int(number): name for number, name in names.items()}, task)
            if wrong:
                raise ValueError("teacher.finetune=false: " + " ".join(wrong))
        model = models.load_teacher(group, task.head).to(context.device)
        if group.finetune:
            context.say(f"fine-tuning teacher {group.name} on {task.name}: {len(train)} examples")
            student = self.student(model, FINETUNE, used_rows=after_update is None)
            self.train(student, after_update=after_update)
        else:
            self._label_own(model)
            self._same_classes(model)
        self.measure(model)
        self.save(model)
        self.keep_answers(model, self.work)
        return model

    def _same_classes(self, model: nn.Module) -> None:
        """Refuse a finished classifier whose answers on training examples fit the classes in another order."""
        train, head = self.data()["train"], self.task.head
        if not {"classes", "examples"} <= head.abilities:
            return
        some = np.unique(np.linspace(0, len(train) - 1, min(SPECIMENS, len(train))).astype(np.int64))
        answers = evaluate.predict(model, train, head, self.context, some)["logits"].argmax(axis=1)
        labels = np.asarray(train.targets[LABEL])[some]
        wrong = check_answers(answers, labels, head.label_names)
        if wrong:
            raise ValueError("teacher.finetune=false: " + " ".join(wrong))
        shares = agreement(answers, labels, head.label_names)
        self.context.say(f"teacher {self.config.teacher.name} answers as labelled: {shares} of {len(some)} examples")

    def _specimen(self, train: Dataset) -> Batch:
        """Return a small batch to look at what a model hands out."""
        return train.collate(np.arange(min(2, len(train)))).to(self.context.device)

    def answers(self, model: nn.Module, split: str, rows: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Return the teacher's outputs on a split, each (n, ...) float32; on some ``rows`` of it, in their order.

        What an earlier stage has stored beside the teacher's weights is read instead of computed.
        """
        data, folder, head = self.heard()[split], self.folder("teacher"), self.task.head
        if split == "train" and folder is not None and rows is None:
            everything, cpu = np.arange(len(data)), torch.device("cpu")
            cached = CachedTeacher.open(folder, head.names, self.recipe.max_length, cpu, everything)
            if cached is not None:
                return {name: values.numpy() for name, values in cached.features.items()}
        return evaluate.answers(model, data, head, self.context, rows)

    def keep_answers(self, model: nn.Module, folder: Path, rows: np.ndarray | None = None) -> None:
        """Store the teacher's answers on train beside its weights, if they are the same in every epoch.

        Args:
            model: the teacher.
            folder: of its weights.
            rows: the examples that are worth it; None = all.
        """
        train, head = self.heard()["train"], self.task.head
        if train.fixed and {"examples", "vectors"} & head.abilities:
            stored = evaluate.answers(model, train, head, self.context, rows)
            teachers.keep_features(folder, stored, self.recipe.max_length, rows)

    def rows(self) -> np.ndarray:
        """Return the ids of the training examples that the recipe uses."""
        return loop.subset(len(self.data()["train"]), self.recipe.examples)

    def updates(self, data: Mapping[str, Dataset] | None = None) -> int:
        """Return how many updates the recipe makes of the task's training split, or of another one."""
        train = (data or self.data())["train"]
        return optim.updates(len(loop.subset(len(train), self.recipe.examples)), self.recipe)

    def scores(self, model: nn.Module) -> dict[str, dict[str, float]]:
        """Return a model's metrics on every split of the task but train, without noting them."""
        return self._rank_0_says(lambda: evaluate.scores(model, self.data(), self.task, self.context))

    def _rank_0_says(self, measure: Callable[[], Any]) -> Any:
        """Return what one process measures for all."""
        return self.context.ranks.told(measure() if self.context.ranks.first else None)

    def measure(self, model: nn.Module, data: Mapping[str, Dataset] | None = None) -> dict[str, dict[str, float]]:
        """Score a model, and the trivial answer, on every split but train; both go into the summary.

        What the model answered is kept beside its weights (:mod:`kdexp.train.predictions`). What selection
        has asked these very weights is not asked again.

        Returns:
            The model's metrics by split.
        """
        data, known = data or self.data(), {}
        if self._judged is not None and self._judged[1] == evaluate.stamp(model):
            known = {name: self._judged[2] for name, split in data.items() if split is self._judged[0]}
        self.summary.scores = self._rank_0_says(
            lambda: evaluate.scores(model, data, self.goal, self.context, self.work, known)
        )
        self.summary.majority = evaluate.trivial(data, self.goal)
        return self.summary.scores

    def save(self, model: nn.Module) -> None:
        """Write a model into the stage's result, complete with its tokenizer, and its sizes into the summary."""
        model.eval()
        if not self.context.ranks.first:
            return
        target = self.work / "model.safetensors"
        with files.room(target, sum(value.nbytes for value in model.state_dict().values())):
            models.save(model, self.work)
        reader = self.config.teacher if self._of_teacher else source.of_student(self.config)
        self.task.save_preprocessor(self.context.data_context(self.recipe.max_length, reader), self.work)
        for name, value in models.describe(model).items():
            setattr(self.summary, name, value)
        self.summary.size_bytes = target.stat().st_size

    def keep(self, module: nn.Module, path: str, dtype: str | None = None) -> None:
        """Write a module's weights to a file of the stage's result, whole or not at all.

        Args:
            path: below the result's folder; it ends in ``.safetensors``.
            dtype: ``fp32`` or ``bf16``, of floating-point weights on disk; None = as they are.
        """
        from safetensors.torch import save_file

        asked = {None: None, "fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
        target, tensors = self.work / path, {}
        for name, value in module.state_dict().items():
            kind = asked if asked is not None and value.is_floating_point() else value.dtype
            tensors[name] = value.detach().to("cpu", kind, copy=True).contiguous()
        with files.fresh(target, sum(value.nbytes for value in tensors.values())) as aside:
            save_file(tensors, aside)
