"""Combinations that cannot work, said before anything is loaded. No network is asked: see :mod:`kdexp.check.probes`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdexp.check import architecture, data, devices, reading, settings, unlabelled
from kdexp.check import teacher as teachers
from kdexp.common.problems import near
from kdexp.common.registry import RESERVED, build, target
from kdexp.config import identity
from kdexp.config.resolve import placed
from kdexp.config.schema import Config
from kdexp.heads.base import Head, unanswered
from kdexp.inits.base import Init
from kdexp.inits.narrow import Narrow
from kdexp.inits.own import Own
from kdexp.methods import pretraining
from kdexp.methods.base import epochs, method, pairs, terms
from kdexp.models import source
from kdexp.models.families.base import Block, family
from kdexp.models.shared_layers import sps_plan
from kdexp.objectives import layer_maps
from kdexp.objectives.base import Objective
from kdexp.tasks.base import Task
from kdexp.tracking import mlflow_store

OWN_STAGE = ", its own stage: "
"""Between an init and what is wrong with its stages' configuration; what is wrong with the run's too is said once."""


def problems(config: Config) -> list[str]:
    """Return every problem of a configuration whose groups are well-formed one by one."""
    unusable = teachers.problems(config.teacher)
    problems = identity.name_problems(config) + unusable + mlflow_store.problems(config.tracking.model_dump())
    task = _task(config)
    if None in (config.teacher.num_layers, config.teacher.hidden_size, config.teacher.num_heads):
        return problems + task  # what depends on the teacher's sizes comes next time
    problems += _sizes(config) + task
    head = None if task else build(config.task).head
    init = _init(config, head)
    problems += init
    if config.teacher.pretrain is not None and not unusable:
        problems += _pretraining(config)
    if not (init or unusable):
        problems += teachers.unreadable(config) + ([] if task else teachers.other_answers(config))
    mapping = _mapping("mapping", config.mapping)
    objective = _objective(config, head, layers=not (init or mapping))
    problems += mapping + objective + devices.problems(config, not objective)
    problems += [] if task else _beside(config)
    sound = None if task else build(config.task)
    problems += architecture.problems(config, sound, layers=not init, objective=not objective)
    if sound is not None and not (unusable or architecture.inputs(config, sound)):
        problems += data.problems(config, sound)
        if not init:
            problems += reading.problems(config, sound, not objective)
    if sound is not None and not (objective or init):
        problems += unlabelled.problems(config, sound)
    return [text for text in problems if text.partition(OWN_STAGE)[2] not in problems]


def _made(where: str, spec: dict[str, Any], base: type[Any], reserved: tuple[str, ...] = ("_target_",)) -> list[str]:
    """Check a node with a ``_target_``: a class of the wanted kind, every key an argument of it, of the right type."""
    try:
        problems = settings.problems(where, spec, target(spec, base), reserved)
        if not problems:
            build(spec, reserved)
        return problems
    except (ValueError, TypeError) as error:
        return [f"{where}: {error}{'' if str(error).endswith('.') else '.'}"]


def _sizes(config: Config) -> list[str]:
    teacher, student, problems = config.teacher, config.student, []
    for who, sizes in (("teacher", teacher), ("student", student)):
        width, heads = sizes.hidden_size, sizes.num_heads
        if width and heads and width % heads:
            problems.append(
                f"{who}.hidden_size={width} is not a multiple of {who}.num_heads={heads}: change one of them."
            )
    if student.sharing == "sps2" and not teacher.attention:
        problems.append(
            f"student.sharing=sps2 exchanges queries and keys, which teacher={teacher.name} (family "
            f"{teacher.family}) cannot: use student.sharing=sps1."
        )
    again = sps_plan(student.num_layers)[student.num_layers :] if student.sharing != "none" else []
    if any(layer == 0 for layer, _ in again) and not family(str(teacher.family)).uniform:
        problems.append(
            f"student.sharing={student.sharing} with student.num_layers={student.num_layers} runs the first layer "
            f"again in a place where family {teacher.family} has another kind: use student.sharing=none, or 6 layers."
        )
    if student.vocab_size != teacher.vocab_size and not placed(config.init):
        problems.append(
            f"student.vocab_size={student.vocab_size} differs from teacher.vocab_size={teacher.vocab_size}: "
            "both read the same tokens; leave student.vocab_size=null."
        )
    if config.selection == "heldout" and config.data.heldout == 0:
        problems.append(
            "selection=heldout with data.heldout=0: nothing is held out; use data.heldout=0.1 or selection=last."
        )
    for name, recipe in (("recipe", config.recipe), ("teacher.recipe", teacher.recipe)):
        if recipe.batch_size % recipe.accumulation:
            problems.append(
                f"{name}.batch_size={recipe.batch_size} is not a multiple of {name}.accumulation="
                f"{recipe.accumulation}: micro-batches must be equal; change one of them."
            )
        if recipe.warmup >= 1 and recipe.warmup % 1:
            problems.append(
                f"{name}.warmup={recipe.warmup}: below 1 it is a share of all updates, from 1 on their whole number."
            )
        if recipe.patience is not None and config.selection == "last":
            problems.append(f"{name}.patience={recipe.patience} has no effect with selection=last: set it to null.")
        for key in ("patience", "eval_every"):
            if getattr(recipe, key) is not None and recipe.keep == "last":
                problems.append(
                    f"{name}.{key}={getattr(recipe, key)} has no effect with {name}.keep=last: set it to null."
                )
    cache = config.runtime.teacher_cache
    if cache not in ("auto", "off") and not teacher.evaluation_mode:
        problems.append(
            f"runtime.teacher_cache={cache} has no effect with teacher.evaluation_mode=false: what a teacher says with "
            "its dropout on differs each time and is not stored; use runtime.teacher_cache=auto."
        )
    if teacher.recipe.dropout is not None:
        problems.append("teacher.recipe.dropout has no effect (a teacher keeps its architecture's): set it to null.")
    return problems


def _task(config: Config) -> list[str]:
    problems = _made("task", config.task, Task)
    if problems:
        return problems
    task = build(config.task)
    root = config.data.root
    if root is not None and not Path(root).expanduser().is_dir():
        return [
            f"data.root={root} is no folder: set KDEXP_DATA or data.root to the folder that holds glue/, or to null."
        ]
    if task.metric not in task.metrics:
        problems.append(
            f"task.metric={task.metric} is not among task.metrics={list(task.metrics)}: add it or choose another."
        )
    return problems + task.problems(root)


def _init(config: Config, head: Head | None) -> list[str]:
    problems = _made("init", config.init, Init)
    if problems:
        return problems
    init, teacher, student = build(config.init), config.teacher, config.student
    problems += init.problems()
    lacking = unanswered(init.asks, head) if head is not None else ""
    if lacking:
        problems.append(f"init={init.name} {lacking} (task={config.task.get('name')}): use init=first.")
    if isinstance(init, Own) and not problems:
        problems += _checkpoint(config)
    if init.method is not None:
        problems += method(init.method).problems(config)
        problems += _inside(config, method(init.method).inside(config))
    try:
        chosen = init.layers(student.num_layers, teacher.num_layers)
        moved = chosen is not None and chosen != [*range(1, len(chosen) + 1)]
        if moved and not family(str(teacher.family)).uniform:
            problems.append(
                f"init={init.name} copies layers {chosen} of a teacher of family {teacher.family}, whose layers "
                "differ in kind (global, local attention): only init=first and init=random keep their wiring."
            )
    except ValueError as error:
        problems.append(str(error))
    if isinstance(init, Narrow):
        if type(family(str(teacher.family)).block) is Block and teacher.family != "electra":
            problems += init.unfit(teacher.model_dump(), student.model_dump())
        else:
            problems.append(
                f"init={init.name} knows how BERT, RoBERTa and their like are cut to another width, and teacher="
                f"{teacher.name} is of family {teacher.family}: use init=random, or a student as wide as its teacher."
            )
    elif init.copies:
        for key in ("hidden_size", "num_heads", "intermediate_size"):
            wanted, given = getattr(teacher, key), getattr(student, key)
            if wanted != given:
                problems.append(
                    f"init={init.name} copies teacher layers of {key}={wanted} into a student with "
                    f"student.{key}={given}: use init=importance (or slice, pca, svd) or init=random, or set "
                    f"student.{key}=null."
                )
    return problems


def _pretraining(config: Config) -> list[str]:
    """Check the stage that makes the teacher's weights."""
    assert config.teacher.pretrain is not None
    found = _made(pretraining.NAME, config.teacher.pretrain, Init) or pretraining.problems(config)
    inner = None if found else pretraining.inside(config)
    return found if inner is None else [f"{pretraining.NAME}{OWN_STAGE}{text}" for text in problems(inner)]


def _checkpoint(config: Config) -> list[str]:
    """Check the checkpoint that a student is, and what is asked of it."""
    own, student = source.own(config), config.student
    if own is None:  # said by its init
        return []
    found = teachers.problems(own)
    if student.sharing != "none":
        found.append(
            f"student.sharing={student.sharing} makes layers of a teacher's, and init={own.name} brings layers of its "
            "own: use student.sharing=none."
        )
    if not found:
        found += teachers.lengths(own, {"recipe": config.recipe.max_length})
        if config.init.get("head") is True:
            found += teachers.other_head(own, build(config.task))
    return found


def _inside(config: Config, inner: Config | None) -> list[str]:
    """Check the configuration of an init's own stages."""
    if inner is None:
        return []
    return [f"init={config.init['name']}{OWN_STAGE}{text}" for text in problems(inner)]


def _beside(config: Config) -> list[str]:
    """Check the configurations of stages with other teachers."""
    others = method(config.objective.method).beside(config)
    return [f"{key}{OWN_STAGE}{text}" for key, other in others.items() for text in problems(other)]


def _mapping(where: str, chosen: Any) -> list[str]:
    """Check a mapping, of all terms or of one: its name, and its options by what they are given to."""
    spec = {"name": chosen} if isinstance(chosen, str) else chosen
    if not isinstance(spec, dict):
        return [f"{where}={chosen!r} is no mapping: give a name, or {{name: ...}} with its options."]
    if "name" not in spec:
        return [f"{where}={spec} has no name: give one, such as {where}.name=uniform, or leave {where} out."]
    name, options = spec["name"], {key: value for key, value in spec.items() if key != "name"}
    if name == "auto":
        return [f"{where}.{key} is unknown: mapping=auto has no options." for key in options]
    if name not in layer_maps.STRATEGIES:
        known = ["auto", *layer_maps.STRATEGIES]
        return [f"{where}.name={name} is unknown; choose one of: {', '.join(known)}.{near(name, known)}"]
    return settings.problems(where, options, layer_maps.STRATEGIES[name], layer_maps.FACTS)


def _objective(config: Config, head: Head | None, layers: bool) -> list[str]:
    """Check the objective.

    Args:
        head: the task's, None if that is unsound.
        layers: the init is sound, so that mappings can be worked out.
    """
    objective = config.objective
    try:
        problems = method(objective.method).problems(config)
    except (ValueError, TypeError):
        if head is not None:
            raise
        problems = []  # it asked the task, of which everything has been said
    if head is not None and head.method not in ("", objective.method):
        problems.append(
            f"objective={objective.name} (method {objective.method}) cannot train the head {head.name} of "
            f"task={config.task.get('name')}: use objective={head.method}."
        )
    if objective.schedule != "single" and not objective.intermediate:
        problems.append(
            f"objective.schedule={objective.schedule} needs a term under objective.intermediate (it is empty): "
            "use objective.schedule=single."
        )
    if objective.schedule == "single" and objective.intermediate:
        problems.append("objective.schedule=single ignores objective.intermediate: use two_phase or joint.")
    if not objective.prediction:
        problems.append("objective.prediction is empty: name at least one term, such as objective/prediction=kd.")
    mappings = []
    for phase in ("intermediate", "prediction"):
        for name, spec in getattr(objective, phase).items():
            key = f"objective.{phase}.{name}"
            wrong = _made(key, spec, Objective, RESERVED)
            wrong += settings.weight(f"{key}.weight", spec.get("weight", 1.0))
            if spec.get("mapping") is not None:
                wrong += _mapping(f"{key}.mapping", spec["mapping"])
            problems += wrong
            if not wrong:
                mappings.append((key, spec, target(spec)))
    phases = ["joint"] if objective.schedule == "joint" else ["intermediate", "prediction"]
    problems += [
        f"objective.{'*' if phase == 'joint' else phase}.*.weight is 0 for every term ({', '.join(weighted)}): nothing "
        "would be learned; give one of them a weight."
        for phase in phases
        if (weighted := terms(config, phase)) and all(spec.get("weight", 1.0) == 0 for spec in weighted.values())
    ]
    for key, spec, cls in mappings:
        problems += _needs(config, key, spec, cls, head, layers)
    if config.mapping.get("name") != "auto" and mappings and not any(c.layers != "none" for _, _, c in mappings):
        problems.append(
            f"mapping={config.mapping.get('name')} has no effect with objective={objective.name}: "
            "it matches no layers; use mapping=auto."
        )
    return problems


def _needs(config: Config, key: str, spec: dict[str, Any], cls: Any, head: Head | None, layers: bool) -> list[str]:
    """Check what one objective wants against what the models can give."""
    teacher, student, problems = config.teacher, config.student, []
    own = source.own(config) if layers else None
    for side in filter(None, (teacher, own)):
        if {"query", "key", "value"} & set(cls.needs) and not side.attention:
            problems.append(
                f"{key} needs queries, keys or values, but {side.who}={side.name} (family {side.family}) "
                "gives logits and hidden states only: choose kd, hid_cls or hid_seq."
            )
    if cls.same_heads and student.num_heads != teacher.num_heads:
        problems.append(
            f"{key} compares attention head by head: student.num_heads={student.num_heads} must equal "
            f"teacher.num_heads={teacher.num_heads} (objective=minilm_v2 does without)."
        )
    lacking = unanswered(cls.asks, head) if head is not None else ""
    if lacking:
        problems.append(f"{key} {lacking} (task={config.task.get('name')}): use kd.")
    if cls.layers == "none" and spec.get("mapping") is not None:
        problems.append(f"{key}.mapping={spec['mapping']} has no effect: {key} matches no layers; set it to null.")
    if layers and cls.layers != "none":
        try:
            pairs(config, spec)
        except ValueError as error:
            problems.append(f"{key}: {error}")
    objective: Objective = build(spec, RESERVED)
    if objective.batchwise and config.recipe.accumulation > 1:
        problems.append(
            f"{key} depends on who is in a batch together, so recipe.accumulation={config.recipe.accumulation} "
            "micro-batches are not one batch: use recipe.accumulation=1."
        )
    try:
        if head is not None and not lacking:
            objective.suits(head)
        if config.recipe.steps is None:
            objective.fits(epochs(config, key.split(".")[1]))
    except ValueError as error:
        problems.append(f"{key}: {error}{'' if str(error).endswith('.') else '.'}")
    return problems
