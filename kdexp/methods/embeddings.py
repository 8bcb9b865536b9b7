"""Embedding distillation: a teacher as it was published says what vector a text has; no label takes part.

The teacher's stage asks it once for all texts, those of held-out splits too, by which a student is then measured.
"""

from __future__ import annotations

import numpy as np
from safetensors.numpy import load_file, save_file

from kdexp.common import files
from kdexp.common.registry import build, target
from kdexp.config.resolve import source_folder
from kdexp.config.schema import Config
from kdexp.heads.base import Head, unanswered
from kdexp.heads.similarities import unit
from kdexp.methods import distill
from kdexp.methods.base import Facts, Method, terms
from kdexp.objectives.embedding import COMPONENTS
from kdexp.store.stage import Stage
from kdexp.tasks.base import Dataset
from kdexp.tasks.text import embedder_folder
from kdexp.tasks.text.embeddings import OF_PAIRS
from kdexp.tasks.text.vectors import Texts
from kdexp.train import evaluate, teachers
from kdexp.train.phase import Phase, Summary

VECTORS = "vectors.safetensors"
"""File of the teacher's stage: what it says of each split but train, by name, in the order of its texts."""


class Embeddings(Method):
    """One phase, or a joint one with terms on hidden states, on the vectors of a teacher that nobody fine-tunes."""

    def problems(self, config: Config) -> list[str]:
        """See :class:`~kdexp.methods.base.Method`."""
        objective, task, wrong = config.objective, build(config.task), list[str]()
        lacking = unanswered(("vectors",), task.head)
        if lacking:
            return [f"objective.method=embeddings {lacking} (task={task.name}): use task=embeddings, or objective=kd."]
        if objective.schedule == "two_phase":
            wrong.append("objective.schedule=two_phase: vectors are learned in one phase; use single or joint.")
        if objective.start != "raw":
            wrong.append(f"objective.start={objective.start}: texts have no labels to fine-tune on; use raw.")
        if target(config.init).method is not None and "task" not in config.init:
            wrong.append(
                f"init={config.init.get('name')} has a stage that learns by labels; texts have none: use "
                "init=importance."
            )
        for phase in ("intermediate", "prediction"):
            wrong += [
                f"objective.{phase}.{name} reads labels or classes, and task={task.name} has vectors: use "
                "objective=embeddings, or terms on hidden states or attention."
                for name, spec in terms(config, phase).items()
                if target(spec).answers and "vectors" not in target(spec).asks
            ]
        if config.selection == "heldout" and config.recipe.keep == "best" and task.metric in OF_PAIRS:
            wrong.append(
                f"selection=heldout with task.metric={task.metric}: held-out texts are no pairs; use "
                "task.metric=agreement, or selection=last (or validation)."
            )
        return wrong + _widths(config, task.head) + _pooling(config, task.head)

    def plan(self, config: Config, facts: Facts) -> Stage:
        """Return the student's phase; its parent is what the teacher says."""
        plain = config.model_copy(update={"teacher": config.teacher.model_copy(update={"finetune": False})})
        recipe = config.teacher.recipe.model_copy(update={"max_length": config.recipe.max_length})
        teacher = distill.teacher_stage(plain, facts, "embeddings.ask_teacher", recipe=recipe.model_dump())
        phase = "joint" if config.objective.schedule == "joint" else "prediction"
        return distill.training(
            plain, facts, "embeddings", phase, distill.phase_terms(config, phase), distill.phase_recipe(config, phase),
            teacher, action="embeddings.train_student",
        )  # fmt: skip


def _widths(config: Config, head: Head) -> list[str]:
    """Refuse principal components where there is nothing to cut."""
    ours, theirs = config.student.hidden_size, config.teacher.hidden_size
    if getattr(head, "projection", "") != "pca" or None in (ours, theirs) or ours < theirs:  # type: ignore[operator]
        return []
    return [
        f"task.projection=pca cuts the teacher's vectors of width {theirs} to the student's, which is {ours}: nothing "
        "is cut; use task.projection=linear, or a narrower student."
    ]


def _pooling(config: Config, head: Head) -> list[str]:
    """Refuse a teacher whose vectors would be other ones than it was trained to give."""
    folder, where = source_folder(config.teacher.source, config.teacher.commit), f"teacher={config.teacher.name}"
    try:
        wrong = [] if folder is None else embedder_folder.problems(folder, getattr(head, "pool", ""))
    except ValueError as error:
        wrong = [str(error)]
    return [f"{where}: {text}." for text in wrong]


# --- what its stages do ----------------------------------------------------------------------------------------------


def ask_teacher(phase: Phase) -> Summary:
    """Keep what the teacher says of every text, and measure it."""
    model, head, data = phase.teacher_model(), phase.task.head, phase.data()
    said = {name: evaluate.answers(model, split, head, phase.context)["embedding"] for name, split in data.items()}
    train = said.pop("train")
    if phase.context.ranks.first:
        teachers.keep_features(phase.work, {"embedding": train}, phase.recipe.max_length)
        _write(phase, VECTORS, said)
        if getattr(head, "projection", "") == "pca":
            _write(phase, COMPONENTS, {"components": components(train)})
    phase.measure(model, _taught(data, said))
    phase.save(model)
    return phase.summary


def train_student(phase: Phase) -> Summary:
    """Train the student, and measure how near it comes to the teacher, and to people."""
    folder = phase.folder("teacher")
    assert folder is not None
    said = load_file(folder / VECTORS)
    if (folder / COMPONENTS).is_file():
        width = phase.config.student.hidden_size
        cut = load_file(folder / COMPONENTS)["components"][:width]
        said = {name: unit(vectors @ cut.T).astype(np.float32) for name, vectors in said.items()}
    data, model = _taught(phase.data(), said), phase.model()
    student = phase.student(model, data=data, used_rows=True)
    phase.summary.mapping = {name: spec["pairs"] for name, spec in phase.settings["terms"].items() if spec["pairs"]}
    phase.train(student, phase.teacher(student), data)
    phase.save(model)
    phase.measure(model, data)
    return phase.summary


def _taught(data: dict[str, Dataset], said: dict[str, np.ndarray]) -> dict[str, Dataset]:
    """Return splits with the teacher's vectors beside them; train stays as it is."""
    return {
        name: split.taught(said[name]) if name in said and isinstance(split, Texts) else split
        for name, split in data.items()
    }


def _write(phase: Phase, name: str, arrays: dict[str, np.ndarray]) -> None:
    with files.fresh(phase.work / name, sum(values.nbytes for values in arrays.values())) as path:
        save_file({key: np.ascontiguousarray(values) for key, values in arrays.items()}, path)


def components(vectors: np.ndarray) -> np.ndarray:
    """Return the principal components of vectors (n, D) as rows (D, D), the largest variance first.

    The sign of each is fixed by its largest entry, so that machines agree.

    Raises:
        ValueError: there are fewer vectors than components.
    """
    if len(vectors) < vectors.shape[1]:
        raise ValueError(
            f"task.projection=pca needs at least {vectors.shape[1]} training texts, one a component; there are "
            f"{len(vectors)}: raise task.limit_train, or use task.projection=linear"
        )
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    found = np.linalg.eigh(centred.T @ centred)[1].T[::-1]
    largest = np.abs(found).argmax(axis=1)
    signs = np.sign(found[np.arange(len(found)), largest])
    return (found * signs[:, None]).astype(np.float32)
