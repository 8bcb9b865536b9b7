"""What the architecture of teacher and student cannot do: read the task's data, hand out what is asked, be cut so."""

from __future__ import annotations

from typing import Any

from kdexp.common.registry import RESERVED, build, target
from kdexp.config.schema import Config, Teacher
from kdexp.methods.base import terms
from kdexp.models import source
from kdexp.models.families.base import Family, family
from kdexp.objectives.base import Objective
from kdexp.tasks.base import Task


def problems(config: Config, task: Task | None, layers: bool, objective: bool) -> list[str]:
    """Return what the two models cannot do because of what they are.

    Args:
        task: the run's, None if it is unsound.
        layers: the init is sound.
        objective: it is sound.
    """
    like = source.of_student(config) if layers else config.teacher
    kind, small = family(str(config.teacher.family)), family(str(like.family))
    found = [] if task is None else inputs(config, task)
    if task is not None and like is not config.teacher and not task.reads == small.reads == "texts":
        found.append(
            f"init={config.init['name']} (family {like.family}) starts from a model of texts, and task={task.name} has "
            f"{task.reads}: use init=first or init=random."
        )
    if task is not None and like is not config.teacher and small.causal != task.head.causal:
        way = "from left to right" if small.causal else "both ways"
        asks = "asks for the next token" if task.head.causal else "wants an encoder"
        found.append(
            f"init={config.init['name']} (family {like.family}) starts from a model that reads {way}, and "
            f"task={task.name} {asks}: use init=first or init=random."
        )
    found += _sizes(config, kind, small) + _training(config, like)
    if source.from_scratch(config.teacher.source):
        found += _from_scratch(config, layers)
    if layers:
        found += _copied(config, kind)
    return found + (_features(config, kind, small) if objective else [])


def inputs(config: Config, task: Task) -> list[str]:
    """Return why the models cannot read what the task has."""
    teacher, kind = config.teacher, family(str(config.teacher.family))
    if task.reads != kind.reads:
        example = "minilm_l6" if task.reads == "texts" else "resnet20"
        return [
            f"task={task.name} has {task.reads}, and teacher={teacher.name} (family {teacher.family}) reads "
            f"{kind.reads}: choose another teacher, such as teacher={example}."
        ]
    if kind.causal and not task.head.causal:
        return [
            f"teacher={teacher.name} (family {teacher.family}) reads from left to right, each token without those "
            f"after it, and task={task.name} wants an encoder, which reads both ways: choose another teacher, such as "
            "teacher=minilm_l6, or task=clm."
        ]
    if task.head.causal and not kind.causal:
        return [
            f"task={task.name} asks for the next token, which teacher={teacher.name} (family {teacher.family}) would "
            "see, for it reads both ways: choose one that reads from left to right, such as teacher=gpt2, or task=mlm."
        ]
    if task.reads != "texts" and teacher.vocab_size is not None:
        return [
            f"teacher.vocab_size={teacher.vocab_size} has no effect: task={task.name} has {task.reads}, and no tokens; "
            "set it to null."
        ]
    return []


def _sizes(config: Config, teacher: Family, student: Family) -> list[str]:
    wrong = []
    for who, sizes, kind in (("teacher", config.teacher, teacher), ("student", config.student, student)):
        wrong += [f"{who}.{text}." for text in kind.misfits(sizes.model_dump(include={"num_layers", "hidden_size"}))]
    return wrong


def _training(config: Config, like: Teacher) -> list[str]:
    """Check what is trained; ``like`` has the student's architecture."""
    wrong, student, kind, big = [], config.student, family(str(like.family)), family(str(config.teacher.family))
    of = f"(family {like.family})"
    if kind.kinds(student.num_layers) and student.sharing != "none":
        wrong.append(
            f"student.sharing={student.sharing} runs layers again in other places, and the layers of student="
            f"{student.name} {of} differ in kind: use student.sharing=none."
        )
    for key in ("dropout", "dropout_epochs"):
        if not kind.dropout and getattr(config.recipe, key) is not None:
            wrong.append(
                f"recipe.{key}={getattr(config.recipe, key)} has no effect: student={student.name} {of} has no "
                "dropout; set it to null."
            )
    for name, recipe, one in (("recipe", config.recipe, kind), ("teacher.recipe", config.teacher.recipe, big)):
        if one.batch_norm and recipe.accumulation > 1:
            wrong.append(
                f"{name}.accumulation={recipe.accumulation}: batch normalisation {of} sees one micro-batch at a time, "
                f"so several are not the same as one batch; use {name}.accumulation=1."
            )
    if big.batch_norm and not config.teacher.evaluation_mode:
        wrong.append(
            "teacher.evaluation_mode=false: a teacher with batch normalisation (family "
            f"{config.teacher.family}) would go on changing while it teaches; use true."
        )
    return wrong


def _from_scratch(config: Config, layers: bool) -> list[str]:
    teacher, wrong = config.teacher, []
    if not teacher.finetune:
        wrong.append(
            f"teacher.finetune=false with teacher.source={teacher.source}: its weights would stay random; use "
            "teacher.finetune=true, or the source of a trained model."
        )
    init: Any = build(config.init) if layers else None
    if init is not None and init.copies and init.source == "pretrained" and teacher.pretrain is None:
        wrong.append(
            f"init.source=pretrained with teacher.source={teacher.source}: a teacher from scratch was never "
            "pretrained; use init.source=finetuned or init=random."
        )
    return wrong


def _copied(config: Config, kind: Family) -> list[str]:
    """Refuse to copy layers into places of another kind."""
    init, student, deep = build(config.init), config.student, config.teacher.num_layers
    assert deep is not None  # checked before
    there, here = kind.kinds(deep), kind.kinds(student.num_layers)
    try:
        chosen = init.layers(student.num_layers, deep)
    except ValueError:  # said by the check of the init
        return []
    if chosen is None or not there or len(here) != len(chosen):
        return []
    misplaced = [(place, layer) for place, layer in enumerate(chosen, 1) if there[layer - 1] != here[place - 1]]
    if not misplaced:
        return []
    place, layer = misplaced[0]
    fitting = [there.index(wanted) + 1 for wanted in here if wanted in there]
    return [
        f"init={init.name} copies layers {chosen}: teacher layer {layer} ({there[layer - 1]}) does not fit student "
        f"layer {place} ({here[place - 1]}): use init=random, or init=layers init.chosen={fitting}."
    ]


def _features(config: Config, kind: Family, small: Family) -> list[str]:
    wrong = []
    for phase in ("intermediate", "prediction"):
        for name, spec in terms(config, phase).items():
            objective, whose = target(spec), f"teacher={config.teacher.name} (family {config.teacher.family})"
            if "hidden" in objective.needs and not (kind.hidden and small.hidden):
                wrong.append(
                    f"objective.{phase}.{name} needs hidden states of tokens, and the layers of {whose} give maps: "
                    "choose an objective on logits (kd, annealing, continuation, ...) or on maps (review_maps)."
                )
            wrong += _looking_ahead(f"objective.{phase}.{name}", spec, config) if kind.causal else []
            if objective.needs_maps and not kind.maps:
                wrong.append(
                    f"objective.{phase}.{name} needs maps of convolutions, and the layers of {whose} give none: choose "
                    "an objective on hidden states, such as review."
                )
    return wrong


def _looking_ahead(key: str, spec: dict[str, Any], config: Config) -> list[str]:
    """Refuse an objective whose tensors mean nothing where a token is read without those after it."""
    remedy = "choose one on answers (kd, finetune) or on all hidden states (hid_seq, hidden_cosine, ted, lwd)."
    whose = f"the models (family {config.teacher.family}) read from left to right"
    if {"query", "key", "value"} & set(target(spec).needs):
        return [f"{key} compares how all tokens of a text attend to one another, and {whose}: {remedy}"]
    objective: Objective = build(spec, RESERVED)
    if objective.reads() == "first":
        return [f"{key} takes the first token's vector for the text's; as {whose}, it has seen itself only: {remedy}"]
    return []
