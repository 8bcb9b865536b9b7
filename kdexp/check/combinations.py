"""Checks across groups: combinations that cannot work, said before anything is loaded."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from kdexp import tracking
from kdexp.check import remote
from kdexp.check import teacher as sources
from kdexp.common.registry import RESERVED, build, target
from kdexp.config.schema import near
from kdexp.heads.base import Head, unanswered
from kdexp.models import source as contents
from kdexp.models.families.base import family
from kdexp.models.shared_layers import effective_layers
from kdexp.objectives import layer_maps


def cross(config: dict[str, Any]) -> list[str]:
    """Return every problem of a configuration whose groups are well-formed one by one."""
    looking = config.get("dry") or config.get("plan") == "show"
    found = sources.check(config["teacher"], looking) + tracking.problems(config.get("tracking") or {})
    found += remote.problems(config["runtime"].get("remote"), write=not looking)
    wrong_task = _task(config, looking)
    if any(config["teacher"].get(key) is None for key in ("num_layers", "hidden_size", "num_heads")):
        return found + wrong_task  # what depends on the teacher's sizes comes next time
    found += _sizes(config) + wrong_task
    head = None if wrong_task else build(config["task"]).head
    wrong_init = _init(config, head)
    found += wrong_init or contents.problems(config)
    return found + _objective(config, head, layers=not wrong_init)


def _arguments(where: str, spec: dict[str, Any], reserved: tuple[str, ...]) -> list[str]:
    """Check a node with a ``_target_``: importable, and every key an argument of it."""
    try:
        found_class = target(spec)
        if not inspect.isclass(found_class):
            return [f"{where}._target_={spec['_target_']} is no class: name the class, such as kdexp.objectives.kd.KD."]
        signature = inspect.signature(found_class)
    except ValueError as error:
        return [f"{where}: {error}."]
    known = [n for n, p in signature.parameters.items() if p.kind is not inspect.Parameter.VAR_KEYWORD and n != "self"]
    found = []
    for key, value in spec.items():
        if key in reserved:
            continue
        if key not in known:
            found.append(f"{where}.{key} is unknown.{near(key, known)} Known keys: {', '.join(known)}.")
        elif value == "???":
            found.append(f"{where}.{key} has no value: give {where}.{key}=...")
    return found


def _sizes(config: dict[str, Any]) -> list[str]:
    teacher, student = config["teacher"], config["student"]
    found = []
    for who, sizes in (("teacher", teacher), ("student", student)):
        width, heads = sizes.get("hidden_size"), sizes.get("num_heads")
        if width and heads and width % heads:
            found.append(f"{who}.hidden_size={width} is not a multiple of {who}.num_heads={heads}: change one of them.")
    if student.get("sharing") == "sps2" and not teacher.get("attention"):
        found.append(
            f"student.sharing=sps2 exchanges queries and keys, which teacher={teacher['name']} (family "
            f"{teacher['family']}) cannot: use student.sharing=sps1."
        )
    if (student.get("num_layers") or 0) < 1:
        found.append(f"student.num_layers={student.get('num_layers')}: at least 1.")
    if student.get("vocab_size") != teacher.get("vocab_size"):
        found.append(
            f"student.vocab_size={student['vocab_size']} differs from teacher.vocab_size={teacher['vocab_size']}: "
            "both read the same tokens; leave student.vocab_size=null."
        )
    if not 0 <= config["data"]["heldout"] < 1:
        found.append(f"data.heldout={config['data']['heldout']}: a share of train, at least 0 and below 1.")
    if config["selection"] == "heldout" and config["data"]["heldout"] == 0:
        found.append(
            "selection=heldout with data.heldout=0: nothing is held out; use data.heldout=0.1 or selection=last."
        )
    for name, recipe in (("recipe", config["recipe"]), ("teacher.recipe", teacher["recipe"])):
        if recipe["batch_size"] % recipe["accumulation"]:
            found.append(
                f"{name}.batch_size={recipe['batch_size']} is not a multiple of {name}.accumulation="
                f"{recipe['accumulation']}: micro-batches must be equal; change one of them."
            )
        if recipe["patience"] is not None and config["selection"] == "last":
            found.append(f"{name}.patience={recipe['patience']} has no effect with selection=last: set it to null.")
        for key in ("patience", "eval_every"):
            if recipe[key] is not None and recipe["keep"] == "last":
                found.append(f"{name}.{key}={recipe[key]} has no effect with {name}.keep=last: set it to null.")
    if teacher["recipe"]["dropout"] is not None:
        found.append("teacher.recipe.dropout has no effect (a teacher keeps its architecture's): set it to null.")
    device = str(config["runtime"]["device"])
    if device not in ("auto", "cpu") and not device.startswith("cuda"):
        found.append(f"runtime.device={device} is unknown; choose auto, cpu, cuda or cuda:N.")
    return found


def _task(config: dict[str, Any], looking: bool) -> list[str]:
    found = _arguments("task", config["task"], ("_target_",))
    if found:
        return found
    try:
        task = build(config["task"])
    except (ValueError, TypeError) as error:
        return [f"task: {error}"]
    root = config["data"]["root"]
    if root is not None and not Path(root).expanduser().is_dir():
        return [
            f"data.root={root} is no folder: set KDEXP_DATA or data.root to the folder that holds glue/, or to null."
        ]
    if task.metric not in task.metrics:
        found.append(
            f"task.metric={task.metric} is not among task.metrics={list(task.metrics)}: add it or choose another."
        )
    if not looking:
        cache = Path(config["runtime"]["store"]).expanduser().absolute() / "cache"
        found += task.needs_hub(root, cache)
    return found + task.problems(root)


def _init(config: dict[str, Any], head: Head | None) -> list[str]:
    found = _arguments("init", config["init"], ("_target_",))
    if found:
        return found
    init = build(config["init"])
    teacher, student = config["teacher"], config["student"]
    found += init.problems()
    lacking = unanswered(init.asks, head) if head is not None else ""
    if lacking:
        found.append(f"init={init.name} {lacking} (task={config['task'].get('name')}): use init=first.")
    if init.stage is not None:
        found += _method(init.stage, config)
    try:
        chosen = init.layers(student["num_layers"], teacher["num_layers"])
        moved = chosen is not None and chosen != [*range(1, len(chosen) + 1)]
        if moved and not family(str(teacher.get("family"))).uniform:
            found.append(
                f"init={init.name} copies layers {chosen} of a teacher of family {teacher['family']}, whose layers "
                "differ in kind (global, local attention): only init=first and init=random keep their wiring."
            )
    except ValueError as error:
        found.append(str(error))
    if init.copies:
        for key in ("hidden_size", "num_heads", "intermediate_size"):
            if student[key] != teacher[key]:
                found.append(
                    f"init={init.name} copies teacher layers of {key}={teacher[key]} into a student with "
                    f"student.{key}={student[key]}: use init=random or leave student.{key}=null."
                )
    return found


def terms(config: dict[str, Any], phase: str) -> dict[str, dict[str, Any]]:
    """Return the weighted terms of a phase: ``intermediate``, ``prediction`` or ``joint`` (both)."""
    objective = config["objective"]
    intermediate, prediction = objective.get("intermediate") or {}, objective.get("prediction") or {}
    return {"intermediate": intermediate, "prediction": prediction, "joint": {**intermediate, **prediction}}[phase]


def _method(path: str, config: dict[str, Any]) -> list[str]:
    """Ask the module of a plan's function for what would stop it: its ``problems(config)``, if it has one."""
    import sys

    from kdexp.methods.base import method

    try:
        ask = getattr(sys.modules[method(path).__module__], "problems", None)
    except ValueError as error:
        return [str(error)]
    return ask(config) if ask is not None else []


def _objective(config: dict[str, Any], head: Head | None, layers: bool) -> list[str]:
    """Check the objective.

    Args:
        head: the task's, None if that is unsound.
        layers: the init is sound, so that mappings can be worked out.
    """
    objective = config["objective"]
    found = _method(objective.get("plan") or "kdexp.methods.distill.plan", config)
    if objective["schedule"] != "single" and not objective.get("intermediate"):
        found.append(
            f"objective.schedule={objective['schedule']} needs a term under objective.intermediate (it is empty): "
            "use objective.schedule=single."
        )
    if objective["schedule"] == "single" and objective.get("intermediate"):
        found.append("objective.schedule=single ignores objective.intermediate: use two_phase or joint.")
    if not objective.get("prediction"):
        found.append("objective.prediction is empty: name at least one term, such as objective/prediction=kd.")
    mappings = []
    for phase in ("intermediate", "prediction"):
        for name, spec in (objective.get(phase) or {}).items():
            where = f"objective.{phase}.{name}"
            wrong = _arguments(where, spec, RESERVED)
            found += wrong
            if not wrong:
                mappings.append((where, spec, target(spec)))
    for where, spec, cls in mappings:
        found += _needs(config, where, spec, cls, head, layers)
    if config["mapping"].get("name") != "auto" and mappings and not any(c.layers != "none" for _, _, c in mappings):
        found.append(
            f"mapping={config['mapping'].get('name')} has no effect with objective={objective['name']}: "
            "it matches no layers; use mapping=auto."
        )
    return found


def _needs(
    config: dict[str, Any], where: str, spec: dict[str, Any], cls: Any, head: Head | None, layers: bool
) -> list[str]:
    """Check what one objective wants against what the models can give."""
    teacher, student, found = config["teacher"], config["student"], []
    if not isinstance(spec.get("weight", 1.0), int | float):
        found.append(f"{where}.weight={spec.get('weight')!r}: a number is needed.")
    if {"query", "key", "value"} & set(cls.needs) and not teacher.get("attention"):
        found.append(
            f"{where} needs queries, keys or values, but teacher={teacher['name']} (family {teacher['family']}) "
            "gives logits and hidden states only: choose kd, hid_cls or hid_seq."
        )
    if cls.same_heads and student["num_heads"] != teacher["num_heads"]:
        found.append(
            f"{where} compares attention head by head: student.num_heads={student['num_heads']} must equal "
            f"teacher.num_heads={teacher['num_heads']} (objective=minilm_v2 does without)."
        )
    lacking = unanswered(cls.asks, head) if head is not None else ""
    if lacking:
        found.append(f"{where} {lacking} (task={config['task'].get('name')}): use kd.")
    if layers and cls.layers != "none":
        try:
            pairs(config, spec, cls)
        except ValueError as error:
            found.append(f"{where}: {error}")
    try:
        built = build(spec, RESERVED)
        if config["recipe"]["steps"] is None:
            built.fits(epochs(config, where.split(".")[1]))
    except (ValueError, TypeError) as error:
        found.append(f"{where}: {error}")
    return found


def epochs(config: dict[str, Any], phase: str) -> int:
    """Return how many epochs a phase has, if the recipe counts epochs."""
    objective = config["objective"]
    own = objective.get("epochs") or {}
    found = own.get("prediction" if objective["schedule"] == "joint" else phase)
    return int(config["recipe"]["epochs"] if found is None else found)


def pairs(config: dict[str, Any], spec: dict[str, Any], cls: Any) -> list[tuple[int, int]]:
    """Return the matched layers of one term: (student layer, teacher layer), 1-based, 0 = embedding output.

    Raises:
        ValueError: the mapping does not fit the two depths.
    """
    if cls.layers == "none":
        return []
    chosen = spec.get("mapping") or config["mapping"]
    chosen = {"name": chosen} if isinstance(chosen, str) else dict(chosen)
    depth = effective_layers(config["student"]["num_layers"], config["student"]["sharing"])
    layers = build(config["init"]).layers(config["student"]["num_layers"], config["teacher"]["num_layers"])
    own = config["student"]["num_layers"] if config["student"]["sharing"] != "none" else None
    return layer_maps.resolve(chosen, cls, depth, config["teacher"]["num_layers"], layers, own_layers=own)
