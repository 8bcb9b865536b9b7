"""What a person must change before anything can run, as sentences; all of them at once."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable, Sequence

from kdexp.common.redact import outward

listener: Callable[[list[str]], None] | None = None
"""Hears what ended a program, in sentences, instead of whoever reads stderr: set where a program asked, no person."""


class ConfigError(ValueError):
    """The request cannot work as it is.

    Attributes:
        problems: one sentence each: the value, the rule, what to do.
    """

    def __init__(self, problems: Iterable[str]):
        self.problems = list(problems)
        super().__init__(f"{len(self.problems)} problem(s):\n" + "\n".join(f"  - {p}" for p in self.problems))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[list[str]]]:
        return type(self), (self.problems,)


def say(text: str, sentences: Sequence[str] = ()) -> None:
    """Print what ended a program to stderr, or tell it to the :data:`listener`.

    Args:
        text: for people who read a terminal.
        sentences: the same without what only a terminal needs; none = the text.
    """
    if listener is None:
        print(outward(text), file=sys.stderr)
    else:
        listener([outward(sentence) for sentence in sentences or [text]])


ALIASES = {
    "bs": "batch_size", "bsz": "batch_size", "train_batch_size": "batch_size", "dataset": "task",
    "dropout_rate": "dropout", "ffn_size": "intermediate_size", "fp16": "dtype", "gpu": "device",
    "grad_accum": "accumulation", "gradient_accumulation_steps": "accumulation", "grad_clip": "clip",
    "heads": "num_heads", "layers": "num_layers", "loss": "objective", "lr": "learning_rate", "max_grad_norm": "clip",
    "max_len": "max_length", "max_seq_length": "max_length", "max_steps": "steps", "model": "student",
    "cpus_per_task": "threads", "gpus_per_node": "gpus", "max_batch_size": "slots", "mem_gb": "memory_gb",
    "n_jobs": "slots", "n_layers": "num_layers", "num_attention_heads": "num_heads", "num_epochs": "epochs",
    "num_hidden_layers": "num_layers", "num_train_epochs": "epochs", "num_workers": "slots", "precision": "dtype",
    "random_seed": "seed", "T": "temperature", "tau": "temperature", "temp": "temperature", "warmup_ratio": "warmup",
    "warmup_steps": "warmup", "wd": "weight_decay", "workers": "slots",
}  # fmt: skip
"""What other programs call a setting -> what it is called here."""


def near(word: object, known: Iterable[object]) -> str:
    """Return ' Did you mean X?' for the known word that is meant, or ''.

    Words and what is known may be dotted keys: the same key in another place is nearer than a like one in the same.
    """
    names = [str(name) for name in known if str(name) != str(word)]
    parent, dot, last = str(word).rpartition(".")
    meant = ALIASES.get(last, last)
    there = [name for name in names if name.rpartition(".")[2] in (last, meant)]
    below = [name for name in there if dot and name.startswith(f"{parent}.")]
    like = difflib.get_close_matches(f"{parent}{dot}{meant}", below or there, 1, 0.0)
    close = like or difflib.get_close_matches(str(word), names, 1)
    return f" Did you mean {close[0]}?" if close else ""
