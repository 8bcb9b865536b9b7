"""Models: load a teacher, build a student, copy weights from one to the other, save and load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdexp.config.resolve import source_folder
from kdexp.models import capture
from kdexp.models import source as contents
from kdexp.objectives.base import Shape
from kdexp.tasks.base import Task

LAYER_LISTS = ("encoder.layer", "encoder.layers", "layers", "transformer.layer")


def location(teacher: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the path or hub id of a teacher and the keyword arguments to load it with (safetensors only)."""
    folder = source_folder(teacher["source"])
    if folder is not None:
        return str(folder), {"local_files_only": True}
    return teacher["source"].partition(":")[2], {"revision": teacher["revision"]}


def tokenizer(teacher: dict[str, Any]) -> Any:
    """Load the teacher's fast tokenizer (teacher and student share it), at most as long as the model's positions."""
    from transformers import AutoConfig, AutoTokenizer

    where, options = location(teacher)
    reader = AutoTokenizer.from_pretrained(where, use_fast=True, trust_remote_code=False, **options)
    most = contents.positions(AutoConfig.from_pretrained(where, trust_remote_code=False, **options).to_dict())
    reader.model_max_length = min(reader.model_max_length, most or reader.model_max_length)
    return reader


def _head(task: Task) -> dict[str, Any]:
    """Return the configuration values that a task's head needs; problem_type is set so that no step recompiles."""
    kind = "regression" if task.kind == "regression" else "single_label_classification"
    names = list(task.label_names) or ["score"]
    return {
        "num_labels": task.num_labels,
        "problem_type": kind,
        "id2label": dict(enumerate(names)),
        "label2id": {name: i for i, name in enumerate(names)},
    }


def _attention(teacher: dict[str, Any]) -> dict[str, Any]:
    return {"attn_implementation": capture.ATTENTION} if teacher["attention"] else {}


def load_teacher(teacher: dict[str, Any], task: Task, weights: Path | None = None) -> nn.Module:
    """Load a teacher as a classifier for a task: pretrained with a new head, or from a finished stage.

    Args:
        teacher: the resolved group ``teacher``.
        task: gives the size of the head and the names of the labels.
        weights: folder of a finished stage whose weights replace the pretrained ones.

    Returns:
        The model; ``model.made_up`` names the weights that were not there and are random.

    Raises:
        ValueError: ``teacher.finetune=false`` and its labels are not the task's, or a weight is missing.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification
    from transformers.utils import logging

    where, options = location(teacher)
    config = AutoConfig.from_pretrained(where, trust_remote_code=False, **options)
    if not teacher["finetune"] and weights is None:
        _same_labels(config, task)
    elif weights is not None:
        return _load(build(config, _head(task), teacher), weights)
    quiet = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model, info = AutoModelForSequenceClassification.from_pretrained(
        where, dtype=torch.float32, use_safetensors=True, output_loading_info=True, trust_remote_code=False,
        **_head(task), **_attention(teacher), **options,
    )  # fmt: skip
    logging.set_verbosity(quiet)
    prefix = model.base_model_prefix + "."
    own_head = not teacher["finetune"]  # then its head is its own too and may not stay random
    lost = sorted(k for k in info["missing_keys"] if own_head or (k.startswith(prefix) and ".pooler." not in k))
    if lost:
        raise ValueError(
            f"teacher={teacher['name']}: {where} has no weights for {', '.join(lost[:5])}; it is incomplete."
        )
    model.made_up = frozenset(info["missing_keys"])
    return model


def load_pretrained(teacher: dict[str, Any], task: Task) -> nn.Module:
    """Load a teacher as it is before fine-tuning on a task, with a new head."""
    return load_teacher({**teacher, "finetune": True}, task)


def _same_labels(config: Any, task: Task) -> None:
    from kdexp.tasks.labels import check_labels

    found = check_labels({int(k): v for k, v in (config.id2label or {}).items()}, task)
    if found:
        raise ValueError("teacher.finetune=false: " + " ".join(found))


def build(config: Any, head: dict[str, Any], teacher: dict[str, Any]) -> nn.Module:
    """Make a classifier with random weights from an architecture's configuration."""
    from transformers import AutoModelForSequenceClassification

    for key, value in head.items():
        setattr(config, key, value)
    return AutoModelForSequenceClassification.from_config(config, dtype=torch.float32, **_attention(teacher))


def build_student(
    teacher: dict[str, Any], student: dict[str, Any], task: Task, dropout: float | None, seed: int
) -> nn.Module:
    """Make a student with random weights: its teacher's architecture with other sizes.

    Args:
        dropout: sets every dropout of the architecture; None = as it is.
        seed: of the random weights.
    """
    from transformers import AutoConfig

    where, options = location(teacher)
    config = AutoConfig.from_pretrained(where, trust_remote_code=False, **options)
    sizes = {
        "num_hidden_layers": student["num_layers"],
        "hidden_size": student["hidden_size"],
        "num_attention_heads": student["num_heads"],
        "intermediate_size": student["intermediate_size"],
    }
    for key, value in sizes.items():
        if value is not None:
            setattr(config, key, value)
    if getattr(config, "layer_types", None) is not None:
        config.layer_types = config.layer_types[: student["num_layers"]]
    if dropout is not None:
        for key in vars(config):
            if key.endswith(("dropout_prob", "dropout")) and isinstance(getattr(config, key), float):
                setattr(config, key, dropout)
    torch.manual_seed(seed)
    model = build(config, _head(task), teacher)
    if student["sharing"] != "none":
        from kdexp.models import sharing

        sharing.share(model, student["sharing"])
    return model


def layers(model: nn.Module) -> nn.ModuleList:
    """Return the list of an encoder's (effective) layers, bottom to top.

    Raises:
        ValueError: an architecture that keeps its layers elsewhere.
    """
    base = getattr(model, str(model.base_model_prefix))
    for path in LAYER_LISTS:
        try:
            found = base.get_submodule(path)
        except AttributeError:
            continue
        if isinstance(found, nn.ModuleList):
            return found
    raise ValueError(
        f"{type(model).__name__}: no list of layers under {', '.join(LAYER_LISTS)}; this family is not known."
    )


def own_layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers that own parameters: all but the repetitions of a student with shared ones."""
    from kdexp.models.shared_layers import Again

    return [layer for layer in layers(model) if not isinstance(layer, Again)]


def shape(model: nn.Module) -> Shape:
    """Return the sizes that objectives may know; the depth is the effective one."""
    config = model.config
    return Shape(len(layers(model)), config.hidden_size, config.num_attention_heads)  # type: ignore[union-attr, arg-type]


def parameters(model: nn.Module) -> int:
    """Count parameters; a shared one counts once."""
    return sum({id(p): p.numel() for p in model.parameters()}.values())


def save(model: nn.Module, folder: Path) -> None:
    """Save weights and configuration the way transformers loads them (safetensors)."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    implementation = model.config._attn_implementation  # type: ignore[union-attr]
    model.config._attn_implementation = "sdpa" if implementation == capture.ATTENTION else implementation  # type: ignore[union-attr]
    try:
        model.save_pretrained(folder)  # type: ignore[operator]
    finally:
        model.config._attn_implementation = implementation  # type: ignore[union-attr]


def _load(model: nn.Module, folder: Path) -> nn.Module:
    """Load every weight of a saved model, strictly."""
    from safetensors.torch import load_model

    missing, unexpected = load_model(model, folder / "model.safetensors", strict=False)
    if missing or unexpected:
        raise ValueError(
            f"{folder}: missing {sorted(missing)[:5]}, unexpected {sorted(unexpected)[:5]}: not this architecture."
        )
    return model


def load_weights(model: nn.Module, folder: Path) -> nn.Module:
    """Load the weights of a finished stage into a model of the same architecture, strictly."""
    return _load(model, folder)


def describe(model: nn.Module) -> dict[str, Any]:
    """Return the numbers that tables show: parameters, layers (owned and run), width."""
    own, run = len(own_layers(model)), len(layers(model))
    width = int(model.config.hidden_size)  # type: ignore[union-attr, arg-type]
    return {"parameters": parameters(model), "layers": own, "effective_layers": run, "hidden_size": width}


def count(teacher: dict[str, Any], task: Task, student: dict[str, Any] | None = None) -> int:
    """Count the parameters of a teacher, or of a student of it, without allocating any."""
    from transformers import AutoConfig

    with torch.device("meta"):
        if student is not None:
            return parameters(build_student(teacher, student, task, None, 0))
        where, options = location(teacher)
        config = AutoConfig.from_pretrained(where, trust_remote_code=False, **options)
        return parameters(build(config, _head(task), teacher))
