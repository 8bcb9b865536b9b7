"""Models: load a teacher, build a student, save and load. What they answer is their head's business."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from kdexp.config.resolve import source_folder, stated
from kdexp.config.schema import Student, Teacher
from kdexp.heads.base import Head
from kdexp.models import architectures, capture, config_json, counting, embedder, shared_layers, weights
from kdexp.models.families import base as families
from kdexp.models.families.base import Shape
from kdexp.models.source import fetch, from_scratch, is_cut, location

log = logging.getLogger("kdexp")

SIZED = ("num_layers", "hidden_size", "num_heads", "intermediate_size")
"""Keys of the group ``student`` that its architecture is resized by."""


def _auto(name: str) -> Any:
    """Return an Auto class by its name; importing transformers takes seconds, and whoever only checks does without."""
    import transformers

    architectures.install()
    return getattr(embedder if name == embedder.AutoEmbedder.__name__ else transformers, name)


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


@contextmanager
def _one_sentence(teacher: Teacher) -> Iterator[None]:
    """Turn what transformers raises about a model's files into one sentence."""
    try:
        yield
    except (ValueError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # of many kinds: what is wrong with other people's files has no end
        told = " ".join(str(error).split())
        raise ValueError(
            f"{teacher.who}={teacher.name}: {teacher.source} cannot be loaded ({type(error).__name__}: {told:.300}): "
            "download or save the model again, or choose another one."
        ) from error


def configuration(teacher: Teacher) -> Any:
    """Load the configuration of a teacher's architecture, as deep as the teacher is.

    Raises:
        ValueError: it cannot be loaded.
    """
    where, options = location(teacher)
    with _one_sentence(teacher):
        config = _auto("AutoConfig").from_pretrained(where, trust_remote_code=False, **options)
    if is_cut(teacher):
        families.family(str(config.model_type)).resize(config, {"num_layers": teacher.num_layers})
    return config


def _folder(teacher: Teacher) -> Path:
    """Return the folder that a teacher's weights are loaded from: its own, or the hub's cache, filled if need be.

    Raises:
        ValueError: what lies there is not loaded.
    """
    with _one_sentence(teacher):
        fetch(teacher, weights=True)
    folder = Path(location(teacher)[0])
    wrong = weights.problems(folder, teacher.source, teacher.place)
    if wrong:
        raise ValueError(f"{teacher.who}={teacher.name}: " + " ".join(wrong))
    return folder


def _attention(teacher: Teacher) -> dict[str, Any]:
    if not teacher.attention:
        return {}
    capture.install()
    return {"attn_implementation": families.ATTENTION}


class Undrawn(TorchDispatchMode):
    """Draws no random numbers in place: for a model all of whose weights are read from a file at once.

    The generators stay where they are, so it is for models after which nobody draws without a seed.
    """

    FILLS = (torch.ops.aten.normal_.default, torch.ops.aten.uniform_.default)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Leave a tensor as it is that would be filled with random numbers."""
        return args[0] if func in self.FILLS else func(*args, **(kwargs or {}))


def load_teacher(teacher: Teacher, head: Head, weights: Path | None = None, draw: bool = True) -> nn.Module:
    """Load a teacher with a head: pretrained with a new one, or from a finished stage.

    Args:
        teacher: the resolved group ``teacher``.
        head: what it shall answer.
        weights: folder of a finished stage whose weights replace the pretrained ones.
        draw: with ``weights``: draw the random numbers that they replace. What is drawn next, such as an objective's
            maps, stands where it always stood; False where nothing is.

    Returns:
        The model; ``model.made_up`` names the weights that were not there and are random.

    Raises:
        ValueError: a weight is missing (with ``teacher.finetune=false``, of the head too).
    """
    if weights is not None:
        with nullcontext() if draw else Undrawn():
            model = build(configuration(teacher), head, teacher)
        return load_weights(model, weights)
    if from_scratch(teacher.source):
        return _from_scratch(teacher, head)
    folder = _folder(teacher)
    with _quietly(), _one_sentence(teacher):
        asked = {"config": _answering(configuration(teacher), head)} if is_cut(teacher) else head.model_config()
        model, info = _auto(head.auto_class).from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True, trust_remote_code=False,
            local_files_only=True, ignore_mismatched_sizes=True, **asked, **_attention(teacher),
        )  # fmt: skip
    model.made_up = frozenset(_made_up(model, info, teacher))
    return model


def _from_scratch(teacher: Teacher, head: Head) -> nn.Module:
    """Make a teacher that has no weights yet: all are drawn, from its own seed."""
    torch.manual_seed(teacher.seed)
    model: Any = build(configuration(teacher), head, teacher)
    model.made_up = frozenset(model.state_dict())
    return model


def _made_up(model: Any, info: dict[str, Any], teacher: Teacher) -> set[str]:
    """Return the names of a loaded model's random weights: its head's, and a pooler's that the files lack.

    Raises:
        ValueError: others are random, or the head's of a teacher that is a classifier already.
    """
    prefix, pooler = f"{model.base_model_prefix}.", f".{families.of(model).pooler}."
    misfits = {name: (tuple(there), tuple(here)) for name, there, here in info["mismatched_keys"]}
    complete = not teacher.finetune  # its head is its own too and may not stay random
    lost = sorted(k for k in info["missing_keys"] if complete or (k.startswith(prefix) and pooler not in k))
    if lost:
        raise ValueError(
            f"{teacher.who}={teacher.name}: {teacher.source} has no weights for {', '.join(lost[:5])}; it is "
            "incomplete."
        )
    for name, (there, here) in sorted(misfits.items()):
        if complete or name.startswith(prefix):
            raise ValueError(
                f"{teacher.who}={teacher.name}: {teacher.source} has {name} of shape {there}, and {here} is needed: "
                "its config.json and its weights, or its labels and the task's, do not belong together."
            )
    if misfits:
        shown = ", ".join(f"{name} {there} -> {here}" for name, (there, here) in sorted(misfits.items()))
        log.info("%s %s: its former head has other outputs and starts anew: %s", teacher.who, teacher.name, shown)
    return {*info["missing_keys"], *misfits}


def load_pretrained(teacher: Teacher, head: Head) -> nn.Module:
    """Load a teacher as it is before fine-tuning on a task, with a new head."""
    return load_teacher(teacher.model_copy(update={"finetune": True}), head)


def build(config: Any, head: Head, teacher: Teacher) -> nn.Module:
    """Make a model with random weights from an architecture's configuration.

    Raises:
        ValueError: there is no such model.
    """
    _answering(config, head)
    with _one_sentence(teacher):
        return _auto(head.auto_class).from_config(config, dtype=torch.float32, **_attention(teacher))


def _answering(config: Any, head: Head) -> Any:
    """Return a configuration with what a head asks of it."""
    for key, value in head.model_config().items():
        setattr(config, key, value)
    return config


def build_student(like: Teacher, student: Student, head: Head, dropout: float | None, seed: int) -> nn.Module:
    """Make a student with random weights: an architecture with other sizes.

    Args:
        like: whose architecture (:func:`kdexp.models.source.of_student`).
        dropout: sets every dropout of the architecture; None = as it is.
        seed: of the random weights.
    """
    config = configuration(like)
    sizes = student.model_dump(include=set(SIZED))
    for key, value in head.of_teacher(config).items():
        setattr(config, key, value)
    families.family(str(config.model_type)).resize(config, sizes)
    if dropout is not None:
        for key in vars(config):
            if key.endswith(("dropout_prob", "dropout", "_pdrop")) and isinstance(getattr(config, key), float):
                setattr(config, key, dropout)
    torch.manual_seed(seed)
    model = build(config, head, like)
    if student.sharing != "none":
        shared_layers.share(model, student.sharing)
    return model


def as_student(teacher: Teacher) -> Student:
    """Return a teacher's sizes as those of a student, for the stage that makes a teacher."""
    sizes = teacher.model_dump(include={*SIZED, "vocab_size"})
    return Student(name=teacher.name, **{key: value for key, value in sizes.items() if value is not None})


def restore(folder: Path, head: Head) -> nn.Module:
    """Load a saved student as it was trained: layers that it shares are there once and run again."""
    capture.install()
    config = _auto("AutoConfig").from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    kind, own = getattr(config, shared_layers.SHARING, "none"), getattr(config, shared_layers.OWN, None)
    if own is not None:
        families.family(str(config.model_type)).resize(config, {"num_layers": own})
    with Undrawn():
        model = _auto(head.auto_class).from_config(config, attn_implementation=families.ATTENTION)
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
    """Save weights and configuration the way transformers loads them (safetensors), and read them back.

    Under the names that the model has in memory: some published checkpoints have older ones (BERT's gamma and beta),
    which transformers would write again, and which no strict loading would find. Shared layers are written as often as
    they run (:func:`kdexp.models.shared_layers.unroll`).

    Raises:
        RuntimeError: what was written is not what the model is.
    """
    shares = bool(shared_layers.repetitions(model))
    plain: Any = shared_layers.unroll(model) if shares else model
    for key in () if shares else (shared_layers.SHARING, shared_layers.OWN):  # of the student that it was made from
        vars(plain.config).pop(key, None)
    implementation = plain.config._attn_implementation
    plain.config._attn_implementation = "sdpa" if implementation == families.ATTENTION else implementation
    try:
        with _quietly():
            plain.save_pretrained(folder, save_original_format=False)
    finally:
        plain.config._attn_implementation = implementation
    _read_back(plain, folder)


def _read_back(model: nn.Module, folder: Path) -> None:
    """Compare what lies in a folder with the model that was written to it, to the bit."""
    from safetensors import safe_open

    wrong = weights.problems(folder) + config_json.problems(folder)
    if not wrong:
        here = model.state_dict()
        with safe_open(folder / weights.SINGLE, "pt") as file:
            names = set(file.keys())
            wrong = [name for name in sorted(names) if name not in here or not _same(here[name], file.get_tensor(name))]
        kept = {here[name].data_ptr() for name in names & set(here)}  # of weights that are one, one is written
        wrong += [name for name, tensor in here.items() if name not in names and tensor.data_ptr() not in kept]
    if wrong:
        raise RuntimeError(
            f"{folder} does not hold the model that was written to it ({'; '.join(wrong[:3])}): the stage is not kept. "
            "Check the disk, and run the same command again."
        )


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Tell whether two tensors have the same bits."""
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    return torch.equal(*(t.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for t in (one, other)))


def load_weights(model: nn.Module, folder: Path) -> nn.Module:
    """Load every weight of a finished stage into a model of the same architecture, strictly.

    Raises:
        ValueError: names that are missing, or not the model's.
    """
    from safetensors.torch import load_model

    missing, unexpected = load_model(model, folder / weights.SINGLE, strict=False)
    again = shared_layers.repetitions(model)
    unknown = sorted(name for name in unexpected if not name.startswith(again))
    if missing or unknown:
        raise ValueError(f"{folder}: missing {sorted(missing)[:5]}, unexpected {unknown[:5]}: not this architecture.")
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
    """Count the parameters of a model, or of a student of that architecture, without allocating any."""
    folder = source_folder(teacher.source, teacher.commit)
    resized = (student or teacher).model_dump(include=set(SIZED))
    counted = None if folder is None else counting.count(stated(folder), head, resized)
    if counted is not None:
        return counted
    with torch.device("meta"):
        if student is not None:
            return parameters(build_student(teacher, student, head, None, 0))
        return parameters(build(configuration(teacher), head, teacher))
