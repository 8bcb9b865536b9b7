"""What stages do: fine-tune or measure a teacher, carry out one phase of distillation.

Every action has the signature ``action(stage, inputs, work, run) -> summary``: the stage's settings say what, the
inputs are its parents' results, ``work`` is the folder that becomes the stage's result, ``run`` is the machinery.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from kdexp.common import machine
from kdexp.common.registry import RESERVED, build
from kdexp.inits import copying
from kdexp.models import build as models
from kdexp.models import capture
from kdexp.objectives.base import Context, Features, Objective, Shape
from kdexp.store.stage import Stage
from kdexp.store.store import Finished
from kdexp.tasks.base import Encoded, Task
from kdexp.train import loop, teachers
from kdexp.train import student as member
from kdexp.train.compiling import compiled_loss, flops
from kdexp.train.evaluate import majority, peak_memory_mb, predict, scores


@dataclass
class Run:
    """The machinery around a stage: where, how, and whom to tell.

    Attributes:
        config: the resolved configuration of the run that carries the stage out.
        device: where it computes.
        dtype: ``fp32`` or ``bf16``.
        threads: of this process.
        cache: folder of tokenised data.
        say: writes a line to the run's log.
        write: ``(stage, step, epoch, values)`` to the run's metrics file.
        stop: becomes true when the run is asked to stop.
        saved: told the key of a stage whenever a checkpoint of it is complete.
        show: progress display: ``show(stage, member, step, total, examples)``.
        facts: filled by stages: what was decided, for the result.
    """

    config: dict[str, Any]
    device: torch.device
    dtype: str
    threads: int
    cache: Path
    say: Callable[[str], None] = print
    write: Callable[[str, int, int, dict[str, float]], None] = lambda stage, step, epoch, values: None
    stop: Callable[[], bool] = lambda: False
    saved: Callable[[str], None] = lambda key: None
    show: Callable[[str, member.Member, int, int, int], None] = lambda stage, student, step, total, examples: None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def cast(self) -> torch.dtype | None:
        """The dtype of autocast, None for full precision."""
        return torch.bfloat16 if self.dtype == "bf16" else None

    def task(self) -> Task:
        """Make the run's task."""
        return build(self.config["task"])

    def data(self, max_length: int) -> dict[str, Encoded]:
        """Return the tokenised splits (cached on disk, shared by all processes)."""
        from kdexp.tasks.text import tokenizer

        root, heldout = self.config["data"]["root"], self.config["data"]["heldout"]
        reader = models.tokenizer(self.config["teacher"])
        found = tokenizer.problems(reader, self.config["teacher"]["vocab_size"], "teacher", max_length)
        if found:
            raise ValueError(" ".join(found))
        splits = self.task().encode(reader, max_length, root, heldout, self.cache)
        if splits["train"].truncated:
            self.say(
                f"{splits['train'].truncated} of {len(splits['train'])} training texts were cut at {max_length} tokens"
            )
        return splits


def teacher(stage: Stage, inputs: dict[str, Finished], work: Path, run: Run) -> dict[str, Any]:
    """Fine-tune the teacher on the task (unless it is a classifier already), measure it, keep its logits on train."""
    task, settings = run.task(), stage.settings
    recipe = settings.get("recipe") or run.config["teacher"]["recipe"]
    data = run.data(recipe["max_length"])
    torch.manual_seed(settings.get("seed", 0))
    model = models.load_teacher(run.config["teacher"], task).to(run.device)
    summary: dict[str, Any] = {}
    if run.config["teacher"]["finetune"]:
        run.say(f"fine-tuning teacher {run.config['teacher']['name']} on {task.name}: {len(data['train'])} examples")
        hard = {"hard": {"_target_": "kdexp.objectives.finetune.Finetune", "weight": 1.0, "pairs": []}}
        student = _member(model, hard, stage, {}, data, task, run, work, recipe)
        summary = _train(stage, student, None, data, recipe, settings["seed"], run)
    summary["scores"] = scores(model, data, task, run)
    summary |= models.describe(model)
    model.eval()
    models.save(model, work)
    summary["majority"] = majority(data, task)
    teachers.keep_logits(work, predict(model, data["train"], run), recipe["max_length"])
    return summary


def distill(stage: Stage, inputs: dict[str, Finished], work: Path, run: Run) -> dict[str, Any]:
    """Carry out one phase: initialise or continue the student, train it on the phase's objectives, measure it."""
    settings, task = stage.settings, run.task()
    recipe = settings["recipe"]
    data = run.data(recipe["max_length"])
    specs = settings["terms"]
    finetuned = inputs["teacher"].folder if "teacher" in inputs else None
    student, started = _student(stage, inputs, finetuned, task, run)
    student.to(run.device)
    one = _member(student, specs, stage, inputs, data, task, run, work, recipe)
    target = _signal(one, finetuned, settings.get("teaches"), data, recipe, task, run)
    summary = _train(stage, one, target, data, recipe, settings["seed"], run)
    summary["init"] = started
    summary["learned_parts"] = {n: p.numel() for n, p in one.objectives.named_parameters()}
    summary["mapping"] = {name: spec["pairs"] for name, spec in specs.items() if spec["pairs"]}
    student.eval()
    models.save(student, work)
    summary |= models.describe(student)
    summary["size_bytes"] = (work / "model.safetensors").stat().st_size
    if stage.settings["phase"] != "intermediate":
        summary["scores"] = scores(student, data, task, run)
        summary["majority"] = majority(data, task)
    return summary


def _signal(
    student: member.Member,
    finetuned: Path | None,
    teaches: str | None,
    data: dict[str, Encoded],
    recipe: dict[str, Any],
    task: Task,
    run: Run,
) -> Callable[[dict], Features] | None:
    """Return the teacher as the loop sees it: None, its stored logits, or the model itself.

    ``teaches`` names other weights than the fine-tuned ones: ``pretrained``, or a folder inside the teacher's result.
    """
    objectives: list[Any] = list(student.objectives.values())
    folder = None if finetuned is None or teaches == "pretrained" else finetuned / (teaches or "")
    if not any(o.uses_teacher for o in objectives) or (folder is None and teaches is None):
        return None
    want, quiet = capture.wanted(objectives, 1), run.config["teacher"]["evaluation_mode"]
    if folder and not want and quiet:
        rows = loop.subset(len(data["train"]), recipe["examples"])
        stored = teachers.Stored.open(folder, recipe["max_length"], run.device, rows)
        if stored is not None:
            return stored
    big = run.config["teacher"]
    model = models.load_teacher(big, task, folder) if folder else models.load_pretrained(big, task)
    model.to(run.device)
    capture.probe(model, _probe_batch(data, run), want, "teacher")
    return teachers.Live(model, want, run.cast, evaluation=quiet)


def _student(
    stage: Stage, inputs: dict[str, Finished], finetuned: Path | None, task: Task, run: Run
) -> tuple[nn.Module, dict]:
    """Build the student and give it its first weights: those of the phase before, or its init."""
    config = run.config
    student = models.build_student(
        config["teacher"], config["student"], task, stage.settings["recipe"]["dropout"], stage.settings["seed"]
    )
    if "start" in inputs:
        models.load_weights(student, inputs["start"].folder)
        return student, inputs["start"].summary["init"]
    if "init" in inputs:
        return student, copying.adopt(student, inputs["init"].folder) | {
            "layers": inputs["init"].summary["init"]["layers"]
        }
    init = build(config["init"])
    source = None
    if init.copies and init.source == "pretrained":
        source = models.load_pretrained(config["teacher"], task)
    elif init.copies:
        source = models.load_teacher(config["teacher"], task, finetuned)
    return student, copying.apply(init, student, source)


def _member(
    model: nn.Module,
    specs: dict[str, dict[str, Any]],
    stage: Stage,
    inputs: dict[str, Finished],
    data: dict[str, Encoded],
    task: Task,
    run: Run,
    work: Path,
    recipe: dict[str, Any],
    make: Callable[..., member.Member] = member.Member,
) -> member.Member:
    """Set the objectives up and put a student with its optimiser together, at its saved progress."""
    terms, big = [], run.config["teacher"]
    for name, spec in specs.items():
        objective: Objective = build(spec, (*RESERVED, "pairs"))
        objective.setup(
            Context(
                student=models.shape(model),
                teacher=Shape(big["num_layers"], big["hidden_size"], big["num_heads"]),
                pairs=[tuple(pair) for pair in spec["pairs"]],
                num_labels=task.num_labels,
                regression=task.kind == "regression",
                num_train=len(data["train"]),
                labels=data["train"].labels.tolist() if task.kind == "classification" else None,
            )
        )
        objective.inherit({role: parent.folder for role, parent in inputs.items()})
        terms.append(member.Term(name, spec["weight"], objective))
    judged = {"heldout": "heldout", "validation": "validation", "last": None}[stage.settings["selection"]]
    judge = None
    if judged is not None and recipe["keep"] == "best":

        def judge(student: nn.Module) -> dict[str, float]:
            return task.evaluate(predict(student, data[judged], run), data[judged].labels)

    decided = machine.decide_compile(
        run.config["runtime"]["compile"], str(run.device), flops(model, run.config, data["train"], recipe), run.threads
    )
    run.facts.setdefault("compile", {})[stage.name] = decided
    return make(
        model,
        terms,
        recipe,
        work,
        judge,
        task.metric,
        run.cast,
        lambda step, epoch, values: run.write(stage.name, step, epoch, values),
        compiled_loss(str(run.device)) if decided["decided"] else member.loss,
    )


def _train(
    stage: Stage,
    student: member.Member,
    target: Callable[[dict], Features] | None,
    data: dict[str, Encoded],
    recipe: dict[str, Any],
    seed: int,
    run: Run,
) -> dict[str, Any]:
    """Run the loop for a gang of one and return what is worth keeping of it."""
    if student.want:
        capture.prepare(student.model)
        capture.probe(student.model, _probe_batch(data, run), student.want, "student")
    runtime = run.config["runtime"]
    began = time.monotonic()
    loop.train(
        [student],
        target,
        data["train"],
        loop.Schedule(
            recipe,
            seed,
            run.device,
            log_every=runtime["log_every"],
            checkpoint_s=runtime["checkpoint_s"],
            stop=run.stop,
            saved=lambda: run.saved(stage.key),
            tick=lambda m, step, total, examples: run.show(stage.name, m, step, total, examples),
        ),
    )
    student.log(student.progress.epoch - 1)
    student.finish()
    seconds, examples = student.progress.seconds, student.progress.step * recipe["batch_size"]
    return {
        "steps": student.progress.step,
        "examples": examples,
        "seconds": round(seconds, 3),
        "examples_per_s": round(examples / max(seconds, 1e-9), 1),
        "peak_memory_mb": peak_memory_mb(run.device),
        "wall_seconds": round(time.monotonic() - began, 3),
        "best": student.progress.best,
        "history": student.progress.history,
        "stopped_early": student.progress.stopped,
    }


def _probe_batch(data: dict[str, Encoded], run: Run) -> dict[str, torch.Tensor]:
    return {k: v.to(run.device) for k, v in data["train"].batch(np.arange(min(2, len(data["train"])))).items()}
