"""``python -m bench tokens``: tokens a second of distillation on raw text, with and without what nobody reads.

Each objective is trained four ways: as kdexp does; with the language head at every position instead of the hidden
tokens alone; with all layers instead of those up to the last one that a term reads; with both. Models have the shape of
the embedded teacher and random weights, texts are random and full. Before anything is timed the four losses on one
batch are compared, without dropout. Then all take turns, update by update, in one process; the medians count.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench import report
from kdexp.common import files, machine

OBJECTIVES = ("mlm", "kd", "hid_seq", "att_mse", "minilm_v2")
WAYS = {
    "needed": (False, False),
    "head everywhere": (True, False),
    "all layers": (False, True),
    "both": (True, True),
}
"""Name of a way -> whether the head is run at every position, whether all layers are run."""
TOLERANCE = 1e-4
"""Relative difference of losses that rounding explains."""
WARM = 2
"""Updates of each way that do not count."""


def parser() -> argparse.ArgumentParser:
    """Return the words that the command knows."""
    made = argparse.ArgumentParser(
        prog="python -m bench tokens", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    made.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=list(OBJECTIVES), metavar="NAME",
                      help=f"usual: {' '.join(OBJECTIVES)}")  # fmt: skip
    for name, usual, said in (
        ("teacher", 6, "layers of the teacher"), ("student", 3, "layers of the student"), ("width", 384, "of both"),
        ("heads", 12, "of attention"), ("vocabulary", 30522, "entries"), ("length", 128, "tokens of a sequence"),
        ("batch", 16, "sequences an update"), ("updates", 8, "that are timed, of each way"), ("threads", 1, "of torch"),
    ):  # fmt: skip
        made.add_argument(f"--{name}", type=int, default=usual, help=f"{said} ({usual})")
    made.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="cpu (usual) or cuda (then in bf16)")
    made.add_argument("--out", type=Path, default=Path("outputs/bench"), help="folder of results (outputs/bench)")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the table, keep it as JSON; the exit code is 1 if the ways compute something else."""
    import torch

    words = list(sys.argv[1:] if arguments is None else arguments)
    made = parser()
    asked = made.parse_args(words)
    low = [name for name, value in vars(asked).items() if isinstance(value, int) and value < 1]
    if low or asked.vocabulary < 10 or asked.length < 8 or asked.student > asked.teacher or asked.width % asked.heads:
        made.error(
            f"{', '.join(f'--{name}={getattr(asked, name)}' for name in low) or 'these sizes'}: all are at least 1, "
            "--vocabulary 10, --length 8; --student is at most --teacher, --width a multiple of --heads"
        )
    if asked.device == "cuda" and not torch.cuda.is_available():
        made.error("--device=cuda: this machine has no such device; use cpu")
    torch.set_num_threads(asked.threads)
    rows, differing = [], 0
    for objective in asked.objectives:
        row = measure(objective, asked)
        differing += "differs" in row
        print(f"{objective}: {row.get('differs') or row['tokens_per_s']}", file=sys.stderr, flush=True)
        rows.append(row)
    sizes = {name: value for name, value in vars(asked).items() if name not in ("objectives", "out")}
    stated = {"hardware": machine.hardware(asked.device), "versions": machine.versions()}
    result = {
        "rows": rows, "sizes": sizes, "machine": stated | {"date": time.strftime("%Y-%m-%d")},
        "command": shlex.join(["python", "-m", "bench", "tokens", *words]),
    }  # fmt: skip
    files.write_text(asked.out.absolute() / "tokens.json", json.dumps(result, indent=1) + "\n")
    print("\n".join(report.tokens([result])))
    return int(differing > 0)


@dataclass
class Way:
    """One way of training: its loss on a batch without dropout, and a function that makes an update."""

    loss: float
    update: Callable[[int], None]


def measure(objective: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Return the tokens a second of each way, its first loss and its spread; ``differs`` where losses are not alike."""
    import torch

    ways = {name: _way(objective, asked, *spared) for name, spared in WAYS.items()}
    row: dict[str, Any] = {"objective": objective, "loss": {name: way.loss for name, way in ways.items()}}
    first = ways["needed"].loss
    tolerance = TOLERANCE if asked.device == "cpu" else 100 * TOLERANCE
    if any(not abs(way.loss - first) <= tolerance * abs(first) for way in ways.values()):
        return row | {"differs": f"the ways compute something else: {row['loss']}"}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(WARM + asked.updates):
        for name, way in ways.items():
            began = time.perf_counter()
            way.update(number)
            if asked.device == "cuda":
                torch.cuda.synchronize()
            if number >= WARM:
                times[name].append(time.perf_counter() - began)
    tokens = asked.batch * asked.length
    return row | {
        "tokens_per_s": {name: round(tokens / median(spent), 1) for name, spent in times.items()},
        "spread": {name: round((max(spent) - min(spent)) / median(spent), 3) for name, spent in times.items()},
    }


def _way(objective: str, asked: argparse.Namespace, everywhere: bool, all_layers: bool) -> Way:
    import numpy as np
    import torch

    from kdexp.config.schema import Recipe
    from kdexp.models import capture
    from kdexp.models.families.base import Shape
    from kdexp.objectives.base import Context
    from kdexp.train.step import Step, Term, run_step
    from kdexp.train.student import Student
    from kdexp.train.teachers import LiveTeacher

    device, split = torch.device(asked.device), _texts(asked)
    head, made = _head(everywhere), _objective(objective)
    pairs = [] if made.layers == "none" else [(asked.student, asked.teacher)]
    shapes = [Shape(layers, asked.width, asked.heads) for layers in (asked.student, asked.teacher)]
    made.setup(Context(shapes[0], shapes[1], pairs, head, len(split), split.targets))
    cast = torch.bfloat16 if asked.device == "cuda" else None
    step = Step(_model(asked, asked.student).to(device), head, [Term(objective, 1.0, made)], cast)
    capture.prepare(step.model, step.want)
    recipe = Recipe(batch_size=asked.batch, learning_rate=1e-5, keep="last")
    student = Student(step, recipe, Path(tempfile.mkdtemp()), None, "accuracy", lambda *ignored: None)
    teacher: Any = None
    if made.uses_teacher:
        big, want = _model(asked, asked.teacher).to(device), capture.wanted([made], 1)
        teacher = LiveTeacher(big, head, want, cast, answers=capture.answers_wanted([made], 1))
        if all_layers:
            _ungated(big)
    if all_layers:
        _ungated(step.model)

    def batch(number: int) -> Any:
        rows = (np.arange(asked.batch) + number * asked.batch) % len(split)
        return split.collate(rows, number).to(device)

    def update(number: int) -> None:
        part = batch(number)
        student.backward(part, teacher(part) if teacher else None, part, 1, number, 0)
        student.update(1e-5, number + 1)

    one = batch(0)
    step.eval()
    with torch.no_grad():
        shares = {objective: torch.ones((), device=device)}
        loss = float(run_step(step, one, teacher(one) if teacher else None, shares)[0])
    student.begin_epoch(0, 1)
    return Way(loss, update)


def _ungated(model: Any) -> None:
    """Take the gates in front of a model's blocks away: it is run whole from now on."""
    from kdexp.models import reach
    from kdexp.models.families.base import of

    delattr(model, reach.GATE)
    for block in of(model).layers(model):
        del block.forward


def _objective(name: str) -> Any:
    """Make an objective with its published settings."""
    from kdexp.objectives.att_mse import AttMSE
    from kdexp.objectives.finetune import Finetune
    from kdexp.objectives.hid_seq import HidSeq
    from kdexp.objectives.kd import KD
    from kdexp.objectives.minilm_v2 import MiniLMv2

    return {"mlm": Finetune, "kd": KD, "hid_seq": HidSeq, "att_mse": AttMSE, "minilm_v2": MiniLMv2}[name]()


def _texts(asked: argparse.Namespace) -> Any:
    """Make sequences of random tokens, 15 % of which are hidden."""
    import numpy as np

    from kdexp.tasks.text.masking import Masking
    from kdexp.tasks.text.packing import Packed

    rows = 8 * asked.batch
    tokens = np.random.default_rng(0).integers(5, asked.vocabulary, (rows, asked.length)).astype(np.uint32)
    masking = Masking(0.15, 0.8, 0.1, 4, np.arange(asked.vocabulary) < 5)
    counts = np.bincount(tokens.ravel(), minlength=asked.vocabulary)
    return Packed(tokens, np.full(rows, asked.length), counts, masking, 0, rows)


def _model(asked: argparse.Namespace, layers: int) -> Any:
    """Make a BERT with a language head and the weights of its depth's seed."""
    import torch
    from transformers import AutoModelForMaskedLM, BertConfig

    from kdexp.models import capture
    from kdexp.models.families.base import ATTENTION

    capture.install()
    torch.manual_seed(layers)
    config = BertConfig(
        num_hidden_layers=layers, hidden_size=asked.width, num_attention_heads=asked.heads,
        intermediate_size=4 * asked.width, vocab_size=asked.vocabulary, max_position_embeddings=max(512, asked.length),
    )  # fmt: skip
    return AutoModelForMaskedLM.from_config(config, attn_implementation=ATTENTION)


def _head(everywhere: bool) -> Any:
    """Return kdexp's head of hidden tokens, or one that is run at every position and then looked at where they are."""
    from kdexp.heads.hidden_tokens import PLACES
    from kdexp.heads.masked_lm import MaskedLM

    class Everywhere(MaskedLM):
        """Logits (B, L, V), of which the hidden tokens' are taken."""

        def places(self, batch: Any) -> Any:
            return None

        def _taken(self, outputs: Any, batch: Any) -> Any:
            logits = outputs["logits"]
            return {"logits": logits.gather(1, batch.labels[PLACES][..., None].expand(-1, -1, logits.shape[-1]))}

        def loss(self, outputs: Any, batch: Any, reduction: str = "mean") -> Any:
            return super().loss(self._taken(outputs, batch), batch, reduction)

        def soft_loss(self, student: Any, teacher: Any, batch: Any, *settings: Any, **named: Any) -> Any:
            sides = (self._taken(side, batch) for side in (student, teacher))
            return super().soft_loss(*sides, batch, *settings, **named)

    return Everywhere() if everywhere else MaskedLM()


if __name__ == "__main__":
    sys.exit(main())
