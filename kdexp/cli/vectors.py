"""Recompute reference values with the functions that training uses: ``python -m kdexp.check FILE.json``.

The file's format is ``kdexp-vectors-1``: each vector names a function, its inputs (tensors as a sine rule, literals,
one-hot or lists of those), its parameters, the expected value and an absolute tolerance. A name that is not in
:data:`FUNCTIONS` fails.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

FORMAT = "kdexp-vectors-1"

_HOMES = {
    "kdexp.objectives.finetune": ["cross_entropy"],
    "kdexp.objectives.kd": ["logit_kl", "logit_soft_ce", "logit_kl_limit", "vanilla_kd_total"],
    "kdexp.objectives.att_mse": ["attention_mse"],
    "kdexp.objectives.att_kl": ["attention_kl"],
    "kdexp.objectives.val_kl": ["relation_kl"],
    "kdexp.objectives.minilm": ["minilm"],
    "kdexp.objectives.minilm_v2": ["relation_kl_sum"],
    "kdexp.objectives.hid_seq": ["hidden_mse", "hidden_mse_layers"],
    "kdexp.objectives.hid_seq_combine": ["hidden_combine"],
    "kdexp.objectives.hid_cls": ["hidden_cls"],
    "kdexp.objectives.hid_cls_contrast": ["contrastive_nce"],
    "kdexp.objectives.patience": ["patience", "pkd_total"],
    "kdexp.objectives.ted": [
        "ted_layer_mse",
        "ted_stage1",
        "ted_stage2_total",
        "ted_qa_kl",
        "ted_filter_positions",
    ],
    "kdexp.objectives.annealing": ["annealing_mse", "annealing_factors"],
    "kdexp.objectives.continuation": [
        "continuation_phi",
        "continuation_psi",
        "continuation_soft",
        "continuation_total",
    ],
    "kdexp.objectives.pro_kd": ["checkpoint_plan"],
    "kdexp.objectives.lgtm": ["lgtm_teacher_loss"],
    "kdexp.objectives.clkd": ["clkd"],
    "kdexp.objectives.review": ["hcl", "reviewkd_warmup"],
    "kdexp.objectives.dpk": ["ema"],
    "kdexp.inits.ptp": ["ptp_labels", "ptp_labels_from_logits", "ptp_median_thresholds"],
    "kdexp.models.shared_layers": ["sps_plan"],
    "kdexp.objectives.attention": ["attention_logits"],
    "kdexp.models.sizes": ["bert_parameter_count"],
    "kdexp.objectives.layer_maps": [
        "map_uniform_attention",
        "map_uniform_hidden",
        "map_pkd",
        "peakd_patience_map",
        "peakd_student_patience_layers",
    ],
}
FUNCTIONS = {name: module for module, names in _HOMES.items() for name in names}


def function(name: str) -> Callable[..., Any]:
    """The function of that name, from where training has it.

    Raises:
        KeyError: if there is none.
    """
    return getattr(import_module(FUNCTIONS[name]), name)


def tensor(spec: dict[str, Any]) -> Any:
    """Build one input from its description (float64; integer literals give int64).

    Raises:
        ValueError: for an unknown kind.
    """
    import torch

    kind = spec["kind"]
    if kind == "list":
        return [tensor(item) for item in spec["items"]]
    if kind == "literal":
        values = torch.tensor(spec["value"])
        return values.double() if values.is_floating_point() else values
    if kind == "sin":
        size = torch.Size(spec["shape"])
        k = torch.arange(size.numel(), dtype=torch.float64)
        return (spec["scale"] * torch.sin(1 + 0.7 * k + spec["phase"])).reshape(size)
    if kind == "onehot":
        out = torch.zeros(spec["shape"], dtype=torch.float64)
        index = torch.tensor(spec["index"]).reshape(*out.shape[:-1], 1)
        return out.scatter_(-1, index, float(spec["scale"]))
    raise ValueError(f"input kind {kind!r} is not known; the format has sin, literal, onehot, list")


def inputs(spec: Any) -> Any:
    """Build inputs wherever a description stands in nested lists and dicts."""
    if isinstance(spec, dict):
        return tensor(spec) if "kind" in spec else {key: inputs(value) for key, value in spec.items()}
    return [inputs(item) for item in spec] if isinstance(spec, list) else spec


def plain(value: Any) -> Any:
    """Tensors and tuples as nested lists and numbers."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def agree(got: Any, expected: Any, tolerance: float) -> bool:
    """Same nesting, and every number within the absolute tolerance (0 = equal). NaN agrees with nothing."""
    if isinstance(expected, list) or isinstance(got, list):
        same = isinstance(expected, list) and isinstance(got, list) and len(got) == len(expected)
        return same and all(agree(g, e, tolerance) for g, e in zip(got, expected, strict=True))
    if isinstance(expected, bool) or isinstance(got, bool):
        return got is expected
    return got == expected if tolerance == 0 else abs(got - expected) <= tolerance


def check(vector: dict[str, Any]) -> tuple[bool, Any]:
    """Recompute one vector.

    Returns:
        Whether it agrees, and the value (or, as text, what went wrong: an error is a failure, not a stop).
    """
    name = vector.get("function")
    if name not in FUNCTIONS:
        return False, f"unknown function {name}"
    try:
        got = plain(function(name)(**inputs(vector["inputs"]), **vector["params"]))
        return agree(got, vector["expected"], vector["tolerance"]), got
    except Exception as error:
        return False, f"{type(error).__name__}: {error}".splitlines()[0]


def short(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, list):
        return "[" + ", ".join(short(item) for item in value) + "]"
    return str(value)


def lines(vectors: list[dict[str, Any]]) -> Iterator[tuple[bool, str]]:
    """Whether each vector passed, and its line: id, expected, got, pass or fail."""
    for vector in vectors:
        passed, got = check(vector)
        texts = [f"{t[:60]}..." if len(t) > 63 else t for t in (short(vector.get("expected")), short(got))]
        if not passed:
            texts[1] = short(got)
        yield passed, f"{vector.get('id')}  expected {texts[0]}  got {texts[1]}  {'pass' if passed else 'FAIL'}"


def load(path: Path) -> list[dict[str, Any]]:
    """The vectors of a file.

    Raises:
        ValueError: if it cannot be read, or has another format.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    found = data.get("format") if isinstance(data, dict) else None
    if found != FORMAT:
        raise ValueError(f"{path} has the format {found!r}; this command reads {FORMAT!r}")
    return data["vectors"]


def main(arguments: list[str] | None = None) -> int:
    """Check a file; the exit status: 0 all passed, 1 a failure, 2 the file cannot be used."""
    import argparse

    parser = argparse.ArgumentParser(prog="python -m kdexp.check", description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help=f"a file of the format {FORMAT}")
    path = parser.parse_args(arguments).file
    try:
        vectors = load(path)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    results = []
    for passed, line in lines(vectors):
        results.append(passed)
        print(line)
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    return 0 if all(results) else 1
