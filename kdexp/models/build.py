"""Models: load a teacher, build a student, save and load. What they answer is their head's business."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdexp.config.schema import Student, Teacher
from kdexp.heads.base import Head
from kdexp.models import capture, shared_layers
from kdexp.models.families import base as families
from kdexp.models.families.base import Shape
from kdexp.models.source import fetch, location


def _auto(name: str) -> Any:
    """Return one of transformers' Auto classes; importing it takes seconds, and whoever only checks does without."""
    import transformers

    return getattr(transformers, name)


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep transformers from reporting what is checked here anyway."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def configuration(teacher: Teacher) -> Any:
    """Load the configuration of a teacher's architecture."""
    where, options = location(teacher)
    return _auto("AutoConfig").from_pretrained(where, trust_remote_code=False, **options)


def _attention(teacher: Teacher) -> dict[str, Any]:
    if not teacher.attention:
        return {}
    capture.install()
    return {"attn_implementation": families.ATTENTION}


def load_teacher(teacher: Teacher, head: Head, weights: Path | None = None) -> nn.Module:
    """Load a teacher with a head: pretrained with a new one, or from a finished stage.

    Args:
        teacher: the resolved group ``teacher``.
        head: what it shall answer.
        weights: folder of a finished stage whose weights replace the pretrained ones.

    Returns:
        The model; ``model.made_up`` names the weights that were not there and are random.

    Raises:
        ValueError: a weight is missing (with ``teacher.finetune=false``, of the head too).
    """
    if weights is not None:
        return load_weights(build(configuration(teacher), head, teacher), weights)
    fetch(teacher, weights=True)
    where, options = location(teacher)
    with _quietly():
        model, info = _auto(head.auto_class).from_pretrained(
            where, dtype=torch.float32, use_safetensors=True, output_loading_info=True, trust_remote_code=False,
            **head.model_config(), **_attention(teacher), **options,
        )  # fmt: skip
    prefix, pooler = f"{model.base_model_prefix}.", f".{families.of(model).pooler}."
    complete = not teacher.finetune  # its head is its own too and may not stay random
    lost = sorted(k for k in info["missing_keys"] if complete or (k.startswith(prefix) and pooler not in k))
    if lost:
        raise ValueError(f"teacher={teacher.name}: {where} has no weights for {', '.join(lost[:5])}; it is incomplete.")
    model.made_up = frozenset(info["missing_keys"])
    return model


def load_pretrained(teacher: Teacher, head: Head) -> nn.Module:
    """Load a teacher as it is before fine-tuning on a task, with a new head."""
    return load_teacher(teacher.model_copy(update={"finetune": True}), head)


def build(config: Any, head: Head, teacher: Teacher) -> nn.Module:
    """Make a model with random weights from an architecture's configuration."""
    for key, value in head.model_config().items():
        setattr(config, key, value)
    return _auto(head.auto_class).from_config(config, dtype=torch.float32, **_attention(teacher))


def build_student(teacher: Teacher, student: Student, head: Head, dropout: float | None, seed: int) -> nn.Module:
    """Make a student with random weights: its teacher's architecture with other sizes.

    Args:
        dropout: sets every dropout of the architecture; None = as it is.
        seed: of the random weights.
    """
    config = configuration(teacher)
    sizes = student.model_dump(include={"num_layers", "hidden_size", "num_heads", "intermediate_size"})
    families.family(str(config.model_type)).resize(config, sizes)
    if dropout is not None:
        for key in vars(config):
            if key.endswith(("dropout_prob", "dropout")) and isinstance(getattr(config, key), float):
                setattr(config, key, dropout)
    torch.manual_seed(seed)
    model = build(config, head, teacher)
    if student.sharing != "none":
        shared_layers.share(model, student.sharing)
    return model


def restore(folder: Path, head: Head) -> nn.Module:
    """Load a saved student with shared layers; transformers alone would load its own layers without the repetitions."""
    capture.install()
    config = _auto("AutoConfig").from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    model = _auto(head.auto_class).from_config(config, attn_implementation=families.ATTENTION)
    kind = getattr(config, shared_layers.SHARING, "none")
    if kind != "none":
        shared_layers.share(model, kind)
    return load_weights(model, folder).eval()


def shape(model: nn.Module) -> Shape:
    """Return the sizes that objectives may know; the depth is the effective one."""
    return families.of(model).shape(model)


def parameters(model: nn.Module) -> int:
    """Count parameters; a shared one counts once."""
    return sum({id(p): p.numel() for p in model.parameters()}.values())


def save(model: nn.Module, folder: Path) -> None:
    """Save weights and configuration the way transformers loads them (safetensors).

    Under the names that the model has in memory: some published checkpoints have older ones (BERT's gamma and beta),
    which transformers would write again, and which no strict loading would find.
    """
    implementation = model.config._attn_implementation  # type: ignore[union-attr]
    model.config._attn_implementation = "sdpa" if implementation == families.ATTENTION else implementation  # type: ignore[union-attr]
    try:
        with _quietly():
            model.save_pretrained(folder, save_original_format=False)  # type: ignore[operator]
    finally:
        model.config._attn_implementation = implementation  # type: ignore[union-attr]


def load_weights(model: nn.Module, folder: Path) -> nn.Module:
    """Load every weight of a finished stage into a model of the same architecture, strictly.

    Raises:
        ValueError: names that are missing, or not the model's.
    """
    from safetensors.torch import load_model

    missing, unexpected = load_model(model, folder / "model.safetensors", strict=False)
    if missing or unexpected:
        raise ValueError(
            f"{folder}: missing {sorted(missing)[:5]}, unexpected {sorted(unexpected)[:5]}: not this architecture."
        )
    return model


def describe(model: nn.Module) -> dict[str, int]:
    """Return the numbers that tables show: parameters, layers (owned and run), width."""
    sizes = shape(model)
    return {
        "parameters": parameters(model),
        "layers": len(shared_layers.own_layers(model)),
        "effective_layers": sizes.num_layers,
        "hidden_size": int(sizes.hidden_size),
    }


def count(teacher: Teacher, head: Head, student: Student | None = None) -> int:
    """Count the parameters of a teacher, or of a student of it, without allocating any."""
    with torch.device("meta"):
        if student is not None:
            return parameters(build_student(teacher, student, head, None, 0))
        return parameters(build(configuration(teacher), head, teacher))
