"""What every contestant gets: the same two models, the same examples, the same objective, as files on disk.

Models have the named shapes and random weights: what they answer decides no time. Lengths are those of real data: of
the texts themselves where ``KDEXP_DATA`` has them, else drawn from quantiles that are stated here.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

LIMIT = 128
"""Tokens after which a text is cut, and to which the textbook loop pads."""
POOL = 32
"""Batches of which a measured stream is a sample: as many as kdexp sorts by length together."""
VOCABULARY = 30_522
OBJECTIVES = {"kd": "prediction", "hid_seq": "intermediate", "att_kl": "intermediate", "pkd": "joint"}
"""Objectives -> the phase that is measured."""


@dataclass(frozen=True)
class Shape:
    """Two models: layers of the teacher and of the student, width and heads of both."""

    teacher: int
    student: int
    width: int
    heads: int
    batch: int

    def config(self, layers: int) -> dict[str, Any]:
        """Return the settings of a BERT of this width, with weights wide enough for attention that is not flat."""
        return {
            "vocab_size": VOCABULARY, "hidden_size": self.width, "num_hidden_layers": layers,
            "num_attention_heads": self.heads, "intermediate_size": 4 * self.width, "max_position_embeddings": 512,
            "num_labels": 2, "initializer_range": 0.06,
        }  # fmt: skip


SHAPES = {
    "6-3x384": Shape(6, 3, 384, 12, 32),
    "12-3x768": Shape(12, 3, 768, 12, 8),
    "12-6x768": Shape(12, 6, 768, 12, 8),
    "tiny": Shape(4, 2, 32, 4, 4),
}
"""Named pairs of models, with the usual examples an update on a desk. ``tiny`` is for tests."""
MODELS = ("6-3x384", "12-3x768", "12-6x768")

STEPS = 21
QUANTILES = {
    "rte": [13, 29, 33, 37, 40, 43, 45, 47, 50, 53, 56, 59, 62, 67, 72, 85, 103, 120, 128, 128, 128],
    "sst2": [3, 4, 4, 5, 6, 6, 7, 8, 8, 9, 10, 11, 13, 14, 16, 18, 20, 23, 27, 33, 66],
    "qnli": [15, 27, 31, 33, 36, 38, 40, 42, 44, 46, 47, 49, 52, 54, 56, 59, 62, 67, 74, 85, 128],
    "full": [LIMIT] * STEPS,
}
"""Every twentieth of the training texts' lengths in tokens of the uncased WordPiece vocabulary, cut at 128 (QNLI: of
4,266 of its texts). ``full`` is no task: every text is as long as can be."""
USED = {"rte": 13_665, "sst2": 11_572, "qnli": 12_313, "full": VOCABULARY}
"""Entries of the vocabulary that these texts use."""
TASKS = ("rte", "sst2", "qnli")


@dataclass(frozen=True)
class Cell:
    """One comparison: everything that all its contestants share.

    Attributes:
        task: whose lengths.
        objective: of :data:`OBJECTIVES`.
        model: of :data:`SHAPES`.
        batch: examples an update.
        updates: updates a repetition, all of them over the same examples.
        repeats: repetitions that count.
        threads: of each contestant.
        order: ``shuffled``: other loops get the same examples in the order of a shuffling loader; ``bucketed``: in
            kdexp's batches of like lengths.
        device: what computes.
        dtype: of kdexp; the others compute in fp32, as they are written.
        compile: kdexp's step is compiled.
    """

    task: str
    objective: str
    model: str
    batch: int
    updates: int
    repeats: int
    threads: int = 1
    order: str = "shuffled"
    device: str = "cpu"
    dtype: str = "auto"
    compile: bool = False

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.task} {self.objective} {self.model}"

    @property
    def shape(self) -> Shape:
        """The two models."""
        return SHAPES[self.model]


@dataclass(frozen=True)
class Examples:
    """Examples of a cell, one after another.

    Attributes:
        ids, kinds: (all tokens,) token ids and token types.
        lengths: (n,) tokens of each.
        labels: (n,).
        vocabulary: ids that the whole training split uses.
        bucketed, shuffled: (n,) the order of the examples, in batches of like lengths or as they come.
        real: they are texts of the task; False = lengths were drawn.
    """

    ids: np.ndarray
    kinds: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    vocabulary: np.ndarray
    bucketed: np.ndarray
    shuffled: np.ndarray
    real: np.ndarray

    def batches(self, order: np.ndarray, size: int) -> list[np.ndarray]:
        """Cut an order into batches of example ids."""
        return [order[i : i + size] for i in range(0, len(order), size)]

    def padded(self, index: np.ndarray, width: int | None = None) -> dict[str, np.ndarray]:
        """Return a batch as the models of transformers read it; None pads to its longest example."""
        width = width or int(self.lengths[index].max())
        starts = np.concatenate([[0], np.cumsum(self.lengths)])
        out = {
            name: np.zeros((len(index), width), np.int64) for name in ("input_ids", "token_type_ids", "attention_mask")
        }
        for row, example in enumerate(index):
            here, n = slice(starts[example], starts[example + 1]), self.lengths[example]
            out["input_ids"][row, :n], out["token_type_ids"][row, :n] = self.ids[here], self.kinds[here]
            out["attention_mask"][row, :n] = 1
        return out | {"labels": self.labels[index]}

    def positions(self, batches: list[np.ndarray], width: int | None = None) -> list[int]:
        """Return the positions, padding included, of each batch."""
        return [len(index) * (width or int(self.lengths[index].max())) for index in batches]


def make(cell: Cell, folder: Path) -> None:
    """Write the models (once for all cells of a shape) and the examples of a cell."""
    for role, layers, seed in (("teacher", cell.shape.teacher, 1), ("student", cell.shape.student, 2)):
        make_model(folder / "models" / cell.model / role, cell.shape.config(layers), seed)
    np.savez(_path(cell, folder), **asdict(_examples(cell, folder)))


def load(cell: Cell, folder: Path) -> Examples:
    """Read the examples of a cell."""
    with np.load(_path(cell, folder)) as kept:
        return Examples(**kept)


def _path(cell: Cell, folder: Path) -> Path:
    return folder / f"examples-{cell.task}-{cell.batch}-{cell.updates}.npz"


def make_model(folder: Path, settings: dict[str, Any], seed: int) -> None:
    """Write a BERT with random weights, unless it is there."""
    if (folder / "model.safetensors").is_file():
        return
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(seed)
    BertForSequenceClassification(BertConfig(**settings)).save_pretrained(folder)


def _examples(cell: Cell, folder: Path) -> Examples:
    """Take a pool of examples as an epoch has it, cut it into batches, and keep batches of all lengths alike."""
    from kdexp.train.batching import batches

    rng = np.random.default_rng(1)
    whole = None if cell.task == "full" else _texts(cell.task, folder)
    if whole is None:
        pool = _drawn(cell.task, POOL * cell.batch, rng)
    else:
        pool = _some(whole, rng.permutation(len(whole["lengths"]))[: POOL * cell.batch])
    lengths = pool["lengths"]
    stream = [index for index in batches(lengths, cell.batch, 1, 0) if len(index) == cell.batch]
    stream.sort(key=lambda index: int(lengths[index].sum()))
    strata = (np.arange(cell.updates) + 0.5) * len(stream) / cell.updates
    kept = [stream[int(place)] for place in strata]
    kept = [kept[i] for i in rng.permutation(len(kept))]
    chosen = _some(pool, np.concatenate(kept))
    n = len(chosen["lengths"])
    return Examples(**chosen, bucketed=np.arange(n), shuffled=rng.permutation(n), real=np.array(whole is not None))


def _some(pool: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    starts = np.concatenate([[0], np.cumsum(pool["lengths"])])
    cut = {key: np.concatenate([pool[key][starts[r] : starts[r + 1]] for r in rows]) for key in ("ids", "kinds")}
    return {**cut, "lengths": pool["lengths"][rows], "labels": pool["labels"][rows], "vocabulary": pool["vocabulary"]}


def _drawn(task: str, n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw examples: lengths by their quantiles, words by Zipf's law among those that the task uses."""
    at = (rng.permutation(n) + 0.5) / n
    lengths = np.interp(at, np.linspace(0, 1, STEPS), QUANTILES[task]).round().astype(np.int64)
    used = np.sort(rng.permutation(VOCABULARY - 1)[: USED[task] - 1] + 1)
    chance = 1 / np.arange(1, len(used) + 1)
    ids = rng.permutation(used)[rng.choice(len(used), int(lengths.sum()), p=chance / chance.sum())]
    return {
        "ids": ids, "kinds": np.zeros_like(ids), "lengths": lengths, "labels": rng.integers(0, 2, n),
        "vocabulary": np.concatenate([[0], used]),
    }  # fmt: skip


@cache
def _texts(task: str, folder: Path) -> dict[str, np.ndarray] | None:
    """Return the training texts of a task as kdexp reads and cuts them; None where they are not on this machine."""
    import torch

    from kdexp.common.registry import build
    from kdexp.config.resolve import source_folder
    from kdexp.run import spec
    from kdexp.train.context import RunContext

    if not os.environ.get("KDEXP_DATA"):
        return None
    config, _ = spec.typed(composed(["teacher=minilm_l6", f"task={task}"]))
    assert config is not None
    tokenizer = source_folder(config.teacher.source)
    if tokenizer is None or not tokenizer.is_dir() or build(config.task).problems(config.data.root):
        return None
    data = RunContext(config, torch.device("cpu"), "fp32", 1, folder / "cache").data(LIMIT)["train"]
    parts: dict[str, list[Any]] = {key: [] for key in ("ids", "kinds", "labels")}
    for start in range(0, len(data), 512):
        batch = data.collate(np.arange(start, min(start + 512, len(data))))
        assert batch.mask is not None
        real = batch.mask.bool()
        parts["ids"].append(batch.inputs["input_ids"][real].numpy())
        parts["kinds"].append(batch.inputs["token_type_ids"][real].numpy())
        parts["labels"].append(batch.labels["label"].numpy())
    joined = {key: np.concatenate(some).astype(np.int64) for key, some in parts.items()}
    vocabulary = data.vocabulary()
    assert vocabulary is not None
    return {**joined, "lengths": np.asarray(data.costs, np.int64), "vocabulary": np.asarray(vocabulary)}


def composed(overrides: list[str]) -> dict[str, Any]:
    """Compose a configuration of kdexp; return plain values with everything filled in."""
    from hydra import compose, initialize_config_dir

    from kdexp.cli import main
    from kdexp.config.resolve import resolve
    from kdexp.sweep import plugins

    main.environment()
    main.resolvers()
    plugins.register()
    with initialize_config_dir(main.CONFIG_PATH, version_base="1.3"):
        return resolve(compose("config", overrides=overrides))


def settings(cell: Cell, folder: Path) -> dict[str, Any]:
    """Return what the contestants are told beside the files: kdexp's configuration, and the terms of the objective.

    A term has ``weight``, ``pairs`` of matched layers (student's, teacher's) and the settings of its objective.
    """
    from kdexp.methods import distill
    from kdexp.run import spec

    raw = composed([
        "teacher=local", f"teacher.source=path:{folder / 'models' / cell.model / 'teacher'}",
        f"student.num_layers={cell.shape.student}", f"objective={cell.objective}", "task=rte",
        f"recipe.batch_size={cell.batch}", "recipe.epochs=100000", "recipe.shuffle=false", "recipe.keep=last",
        f"runtime.device={cell.device}", f"runtime.dtype={cell.dtype}", f"runtime.compile={str(cell.compile).lower()}",
        f"runtime.threads={cell.threads}", f"runtime.store={folder / 'store'}", "runtime.checkpoint_s=100000000",
        "runtime.progress=false",
    ])  # fmt: skip
    config, problems = spec.typed(raw)
    if config is None:
        raise ValueError(" ".join(problems))
    return {
        "config": json.loads(config.model_dump_json()),
        "terms": distill.phase_terms(config, OBJECTIVES[cell.objective]),
    }
