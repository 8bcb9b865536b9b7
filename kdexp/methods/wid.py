"""WID, weight-inherited distillation, our shortened reading (Wu et al., NAACL 2024 findings, arXiv 2305.09098; code).

One stage before the student's first: :class:`kdexp.inits.wid.WID` asks for it. Every linear map of a student of the
teacher's width gets a row and a column compactor, identities at the start; they are trained on the task's labels while
ever more hidden dimensions, heads and neurons are cut; at the end all is merged into the narrow student.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdexp.common.registry import build
from kdexp.config.schema import Config
from kdexp.inits import copying
from kdexp.inits.layers import Layers
from kdexp.inits.narrow import DEPTHS
from kdexp.inits.wid import ROUNDS, wid_cut, wid_keep, wid_merge
from kdexp.methods import distill
from kdexp.methods.base import Facts, Method
from kdexp.models import build as models
from kdexp.models.families import base as families
from kdexp.store.stage import Stage
from kdexp.train.phase import FINETUNE, Phase, Summary
from kdexp.train.student import Student

SHARE = 0.8
"""Of the updates, after which everything has been cut."""


class WID(Method):
    """No way of its own through a run: it serves the init of the same name with a stage."""

    def problems(self, config: Config) -> list[str]:
        """See :class:`~kdexp.methods.base.Method`."""
        found = []
        if config.objective.method == "wid":
            found.append(
                "objective.method=wid lays no run out: use init=wid, which goes with any objective, and leave "
                "objective.method as the objective has it."
            )
        if config.student.sharing != "none":
            found.append(f"init=wid makes layers of their own, and student.sharing={config.student.sharing}: use none.")
        return found

    def plan(self, config: Config, facts: Facts) -> Stage:
        """There is none."""
        raise ValueError("objective.method=wid lays no run out: choose init=wid, which goes with any objective.")

    def init_stage(self, config: Config, facts: Facts, teacher: Stage | None) -> Stage:
        """Return the stage that trains and merges the compactors."""
        init = config.init
        own = {key: init[key] for key in ("epochs", "learning_rate") if init.get(key) is not None}
        settings = {
            **distill.common(config, facts),
            "selection": "last",
            "student": distill.student_settings(config),
            "init": distill.init_settings(config),
            "recipe": {**config.recipe.model_dump(), **own, "keep": "last"},
            "seed": config.seed,
        }
        parents = {"teacher": teacher or distill.teacher_stage(config, facts)}
        return Stage("wid", "wid.compress", settings, parents, shared=True)


class Compact(nn.Module):
    """R (W C x + b) with a frozen linear map and trained compactors, of which some rows and columns are cut.

    Args:
        linear: the map; it is frozen here.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear.requires_grad_(False)
        out, inner = linear.weight.shape
        self.row = nn.Parameter(torch.eye(out, dtype=linear.weight.dtype))
        self.column = nn.Parameter(torch.eye(inner, dtype=linear.weight.dtype))
        self.register_buffer("rows", torch.ones(out, dtype=linear.weight.dtype))
        self.register_buffer("columns", torch.ones(inner, dtype=linear.weight.dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Return the output, zero where rows are cut."""
        inner = F.linear(x * self.columns, self.column)
        return F.linear(self.linear(inner), self.row) * self.rows

    def merged(self, rows: list[int], columns: list[int]) -> list[Tensor]:
        """Return weight and bias of the map that is left."""
        return wid_merge(self.linear.weight, self.linear.bias, self.row, self.column, rows, columns)


class CompactNorm(nn.Module):
    """LayerNorm over the dimensions that are kept; zero elsewhere. Before it a compactor, for embeddings.

    Args:
        norm: the LayerNorm; it is frozen here.
        compacts: it has a compactor.
    """

    kept: Tensor

    def __init__(self, norm: nn.LayerNorm, compacts: bool = False) -> None:
        super().__init__()
        self.norm = norm.requires_grad_(False)
        width, dtype = len(norm.weight), norm.weight.dtype
        self.column = nn.Parameter(torch.eye(width, dtype=dtype)) if compacts else None
        self.register_buffer("kept", torch.ones(width, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised states (..., D)."""
        x = x if self.column is None else x @ self.column
        n = self.kept.sum()
        gap = (x - (x * self.kept).sum(-1, keepdim=True) / n) * self.kept
        spread = (gap.square().sum(-1, keepdim=True) / n + self.norm.eps).rsqrt()
        return (gap * spread * self.norm.weight + self.norm.bias) * self.kept


class Compactors:
    """The compactors of a model: what is cut when, and the narrow model that is left.

    Args:
        model: of the teacher's width; changed in place.
        target: the narrow student, whose sizes are the goal.
    """

    def __init__(self, model: Any, target: Any) -> None:
        self.model, self.target = model, target
        base: Any = families.of(model).base(model)
        self.base = base
        self.blocks: list[Any] = list(families.of(model).layers(model))
        model.requires_grad_(False)
        for block in self.blocks:
            own = block.attention.self
            own.query, own.key, own.value = Compact(own.query), Compact(own.key), Compact(own.value)
            for part in (block.attention.output, block.output):
                part.dense, part.LayerNorm = Compact(part.dense), CompactNorm(part.LayerNorm)
            block.intermediate.dense = Compact(block.intermediate.dense)
        self.base.embeddings.LayerNorm = CompactNorm(self.base.embeddings.LayerNorm, compacts=True)
        if getattr(self.base, "pooler", None) is not None:
            self.base.pooler.dense = Compact(self.base.pooler.dense)
        for name, parameter in model.named_parameters():
            if not name.startswith(model.base_model_prefix):
                parameter.requires_grad_(True)

    def cut(self, step: int, every: int) -> None:
        """Cut what is due after so many updates: the columns of smallest norm; what is cut stays cut."""
        wide, narrow = self.model.config, self.target.config
        first = self.blocks[0].attention.self.value
        due = wid_cut(step, every, wide.hidden_size, narrow.hidden_size)
        hidden = _mask(wid_keep(first.column.detach() * first.columns, due), first.columns)
        for block in self.blocks:
            own, out = block.attention.self, block.attention.output.dense
            sizes = (out.column.detach() * out.columns).square().sum(0).reshape(wide.num_attention_heads, -1)
            due = wid_cut(step, every, wide.num_attention_heads, narrow.num_attention_heads)
            kept = wid_keep(sizes.sum(1).sqrt()[None, :], due)
            size = wide.hidden_size // wide.num_attention_heads
            heads = _mask([head * size + i for head in kept for i in range(size)], out.columns)
            inner = block.output.dense
            due = wid_cut(step, every, wide.intermediate_size, narrow.intermediate_size)
            neurons = _mask(wid_keep(inner.column.detach() * inner.columns, due), inner.columns)
            for projection in (own.query, own.key, own.value):
                _set(projection, heads, hidden)
            _set(out, hidden, heads)
            _set(block.intermediate.dense, neurons, hidden)
            _set(inner, hidden, neurons)
            for part in (block.attention.output, block.output):
                part.LayerNorm.kept.copy_(hidden)
        self.base.embeddings.LayerNorm.kept.copy_(hidden)
        if getattr(self.base, "pooler", None) is not None:
            _set(self.base.pooler.dense, hidden, hidden)

    @torch.no_grad()
    def merge(self) -> None:
        """Write what is left into the narrow model, in place; the two then say the same."""
        narrow: Any = families.of(self.target).base(self.target)
        norm = self.base.embeddings.LayerNorm
        hidden = norm.kept.nonzero()[:, 0].tolist()
        for name, parameter in narrow.embeddings.named_parameters():
            source = self.base.embeddings.get_parameter(name.replace("LayerNorm.", "LayerNorm.norm."))
            parameter.copy_(source[hidden] if source.dim() == 1 else (source @ norm.column)[:, hidden])
        for block, left in zip(self.blocks, families.of(self.target).layers(self.target), strict=True):
            for name, module in block.named_modules():
                if isinstance(module, Compact):
                    kept = [mask.nonzero()[:, 0].tolist() for mask in (module.rows, module.columns)]
                    weight, bias = module.merged(*kept)
                    left.get_parameter(f"{name}.weight").copy_(weight)
                    left.get_parameter(f"{name}.bias").copy_(bias)
                elif isinstance(module, CompactNorm):
                    left.get_parameter(f"{name}.weight").copy_(module.norm.weight[hidden])
                    left.get_parameter(f"{name}.bias").copy_(module.norm.bias[hidden])
        if getattr(self.base, "pooler", None) is not None:
            weight, bias = self.base.pooler.dense.merged(hidden, hidden)
            narrow.pooler.dense.weight.copy_(weight)
            narrow.pooler.dense.bias.copy_(bias)


def _mask(kept: list[int], like: Tensor) -> Tensor:
    """Ones at the kept places."""
    mask = torch.zeros_like(like)
    mask[kept] = 1.0
    return mask


def _set(module: Compact, rows: Tensor, columns: Tensor) -> None:
    """Cut rows and columns of a compacted map."""
    module.rows.copy_(rows)
    module.columns.copy_(columns)


def compress(phase: Phase) -> Summary:
    """Train compactors on the task's labels while dimensions go, merge them, keep the narrow student."""
    config, head, init = phase.config, phase.goal.head, build(phase.config.init)
    narrow = models.build_student(config.teacher, config.student, head, phase.recipe.dropout, phase.settings["seed"])
    sizes = {key: getattr(config.teacher, key) for key in ("hidden_size", "num_heads", "intermediate_size")}
    as_wide = config.student.model_copy(update=sizes)
    wide = models.build_student(config.teacher, as_wide, head, phase.recipe.dropout, phase.settings["seed"])
    rule = {"source": init.source, "name": init.name}
    depth = Layers(chosen=list(init.depth), **rule) if isinstance(init.depth, list) else DEPTHS[init.depth](**rule)
    pretrained = init.source == "pretrained"
    source = (
        models.load_pretrained(config.teacher, head)
        if pretrained
        else models.load_teacher(config.teacher, head, phase.folder("teacher"))
    )
    phase.summary.init = copying.apply(depth, wide, source)
    compactors = Compactors(wide, narrow)
    every = max(1, int(SHARE * phase.updates()) // ROUNDS)

    def cut(student: Student, step: int) -> None:
        if step % every == 0:
            compactors.cut(step, every)

    model = wide.to(phase.context.device)
    phase.train(phase.student(model, FINETUNE), after_update=cut)
    compactors.cut(ROUNDS * every, every)
    wide.cpu()
    compactors.merge()
    phase.save(narrow)
    return phase.summary
