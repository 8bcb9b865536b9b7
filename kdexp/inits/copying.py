"""Copying weights from a teacher into a student, with proof that nothing was forgotten."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdexp.inits.base import Init
from kdexp.inits.own import Own
from kdexp.models import shared_layers
from kdexp.models import source as contents
from kdexp.models.families import base as families


@torch.no_grad()
def apply(init: Init, student: nn.Module, teacher: nn.Module | None) -> dict[str, Any]:
    """Initialise a student as ``init`` says.

    Embeddings and everything else outside the layers always come from the teacher; the pooler and the head if asked.

    Args:
        init: the rule.
        student: freshly built (random weights); changed in place.
        teacher: the model to copy from, same width; None only if nothing is copied.

    Returns:
        ``{"layers": teacher layers or None, "copied": tensors, "random": tensors, "random_names": [...]}``.

    Raises:
        ValueError: a weight that should have been copied has no counterpart or another shape, or was not in the
            teacher's files.
    """
    mine = dict(student.named_parameters()) | dict(student.named_buffers())
    own = len(shared_layers.own_layers(student))
    if not init.copies:
        return {"layers": None, "copied": 0, "random": len(mine), "random_names": []}
    if teacher is None:
        raise ValueError(f"init={init.name} copies weights but no teacher was built.")
    chosen = init.layers(own, len(families.of(teacher).layers(teacher)))
    assert chosen is not None
    theirs = dict(teacher.named_parameters()) | dict(teacher.named_buffers())
    made_up: frozenset[str] = getattr(teacher, "made_up", frozenset())
    prefix = families.of(student).prefix(student)
    copied: list[str] = []
    left: list[str] = []
    for name, tensor in mine.items():
        source = name
        if name.startswith(prefix):
            number, _, rest = name[len(prefix) :].partition(".")
            source = f"{prefix}{chosen[int(number)] - 1}.{rest}"
        elif not wanted(init, name, student):
            left.append(name)
            continue
        if source not in theirs or theirs[source].shape != tensor.shape:
            have = tuple(theirs[source].shape) if source in theirs else "nothing"
            raise ValueError(
                f"init={init.name}: student weight {name} {tuple(tensor.shape)} should be copied from teacher weight "
                f"{source}, which has {have}: choose other layers or init=random."
            )
        if source in made_up:
            raise ValueError(contents.no_weights(init.name, source))
        tensor.copy_(theirs[source])
        copied.append(name)
    _complete(init, chosen, prefix, mine, theirs)
    return {"layers": chosen, "copied": len(copied), "random": len(left), "random_names": left}


def _complete(init: Init, chosen: list[int], prefix: str, mine: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Refuse a copy in which a teacher layer has weights that the student's layer has no place for."""
    for number, layer in enumerate(chosen):
        there = {
            name.split(".", 1)[1]
            for name in (n[len(prefix) :] for n in theirs if n.startswith(f"{prefix}{layer - 1}."))
        }
        here = {
            name.split(".", 1)[1] for name in (n[len(prefix) :] for n in mine if n.startswith(f"{prefix}{number}."))
        }
        if there - here:
            raise ValueError(
                f"init={init.name}: teacher layer {layer} has {', '.join(sorted(there - here)[:3])}, student layer "
                f"{number + 1} has not: the layers of this architecture differ in kind; use init=first or init=random."
            )


@torch.no_grad()
def take(init: Own, student: nn.Module, checkpoint: nn.Module, head: bool) -> dict[str, Any]:
    """Take a checkpoint of the student's own, in place: everything that was in its files, but what the init leaves out.

    Args:
        init: leaves the pooler out, or not.
        student: freshly built, of the same architecture and sizes.
        checkpoint: loaded; ``made_up`` names its random weights.
        head: its head is taken too, if it is there and the init does not say otherwise.

    Returns:
        As :func:`apply`.

    Raises:
        ValueError: the init asks for the head, and it is not there.
    """
    made_up: frozenset[str] = getattr(checkpoint, "made_up", frozenset())
    there = dict(checkpoint.named_parameters()) | dict(checkpoint.named_buffers())
    mine = dict(student.named_parameters()) | dict(student.named_buffers())
    asked = replace(init, head=head if init.head is None else init.head)
    left = [name for name in mine if name in made_up or not wanted(asked, name, student)]
    lacking = [name for name in left if init.head and not name.startswith(f"{student.base_model_prefix}.")]
    if lacking:
        raise ValueError(
            f"init={init.name}: its files have no head for this task ({', '.join(lacking[:3])}): use init.head=false."
        )
    for name in mine.keys() - set(left):
        mine[name].copy_(there[name])
    return {"layers": None, "copied": len(mine) - len(left), "random": len(left), "random_names": left}


def adopt(student: nn.Module, folder: Path) -> dict[str, Any]:
    """Take everything but the head from a student that another stage has trained, in place.

    Returns:
        As :func:`apply`, without ``layers``.

    Raises:
        ValueError: a weight is missing there, or has another shape.
    """
    from safetensors.torch import load_file

    prefix, again = f"{student.base_model_prefix}.", shared_layers.repetitions(student)
    stored = load_file(folder / "model.safetensors")
    found = {name: stored[name] for name in stored if name.startswith(prefix) and not name.startswith(again)}
    try:
        missing = student.load_state_dict(found, strict=False).missing_keys
    except RuntimeError as error:
        raise ValueError(f"{folder} holds another student: {' '.join(str(error).split())}") from error
    pooler = f"{prefix}{families.of(student).pooler}."
    unpooled = not any(name.startswith(pooler) for name in found)  # raw text has no use for one: it starts anew
    lost = [name for name in missing if name.startswith(prefix) and not (unpooled and name.startswith(pooler))]
    if lost:
        raise ValueError(f"{folder} has no weights for {', '.join(lost[:5])}: it holds another student.")
    return {"copied": len(found), "random": len(missing), "random_names": missing}


def wanted(init: Init, name: str, model: nn.Module) -> bool:
    """Tell whether a weight outside the layers is copied."""
    prefix = str(model.base_model_prefix) + "."
    if not name.startswith(prefix):
        return init.head
    if name[len(prefix) :].startswith(f"{families.of(model).pooler}."):
        return init.pooler
    return True
