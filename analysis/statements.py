"""The claims as they stand in ``claims.yaml``: read, written out (``for``) and checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

KINDS = {"contrast": ("a", "b"), "chain": ("of",), "gap": ("a", "b", "large", "small")}
OPTIONAL = {"within", "metric", "above", "margin", "negligible", "control", "expect"}
FILE = Path(__file__).with_name("claims.yaml")


def load(path: Path | None = None) -> list[dict[str, Any]]:
    """The claims, one entry each. ``ValueError`` names the claim and what is wrong with it."""
    path = path or FILE
    claims = [
        claim for entry in yaml.safe_load(path.read_text(encoding="utf-8")) or [] for claim in _written_out(entry)
    ]
    seen: set[str] = set()
    for claim in claims:
        problems = [*_problems(claim), *(["is there twice"] if claim.get("id") in seen else [])]
        if problems:
            raise ValueError(f"{path}: claim {claim.get('id', claim)}: {'; '.join(problems)}")
        seen.add(claim["id"])
    for claim in claims:
        if claim.get("control", claim["id"]) not in seen:
            raise ValueError(f"{path}: claim {claim['id']}: its control {claim['control']} is no claim of this file")
    return claims


def sides(claim: dict[str, Any]) -> list[list[tuple[float, dict[str, Any]]]]:
    """The parts of a claim, each a sum of sides with their signs; every part must hold."""
    if claim["kind"] == "chain":
        return [[(1.0, upper), (-1.0, lower)] for upper, lower in zip(claim["of"], claim["of"][1:], strict=False)]
    a, b = claim["a"], claim["b"]
    if claim["kind"] == "contrast":
        return [[(1.0, a), (-1.0, b)]]
    large, small = claim["large"], claim["small"]
    return [[(1.0, {**a, **large}), (-1.0, {**b, **large}), (-1.0, {**a, **small}), (1.0, {**b, **small})]]


def threshold(claim: dict[str, Any]) -> float:
    """Points above which the effect must lie: ``above``, minus the ``margin`` of "at least as good", or 0."""
    return -float(claim["margin"]) if "margin" in claim else float(claim.get("above", 0))


def _written_out(entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """An entry with ``for: {NAME: [values]}`` as one claim a value, ``{NAME}`` replaced; others as they are."""
    if not isinstance(entry, dict) or "for" not in entry:
        yield entry
        return
    (name, values), *more = entry["for"].items()
    if more:
        raise ValueError(f"claim {entry.get('id')}: for has {1 + len(more)} names; it takes one")
    rest = {key: value for key, value in entry.items() if key != "for"}
    for value in values:
        claim = _replaced(rest, f"{{{name}}}", str(value))
        if isinstance(claim.get("expect"), dict):
            claim["expect"] = claim["expect"].get(str(value), "")
        yield claim


def _replaced(value: Any, mark: str, word: str) -> Any:
    """``value`` with ``mark`` replaced in all of its strings."""
    if isinstance(value, dict):
        return {key: _replaced(one, mark, word) for key, one in value.items()}
    if isinstance(value, list):
        return [_replaced(one, mark, word) for one in value]
    return value.replace(mark, word) if isinstance(value, str) else value


def _problems(claim: dict[str, Any]) -> list[str]:
    """What is wrong with one written-out claim."""
    if claim.get("kind") not in KINDS:
        return [f"kind {claim.get('kind')!r} is not one of {', '.join(KINDS)}"]
    needed = {"id", "paper", "says", "kind", "tasks", *KINDS[claim["kind"]]}
    lacking = [f"lacks {key}" for key in sorted(needed - set(claim))]
    if lacking:
        return lacking
    out = [f"has an unknown key {key}" for key in sorted(set(claim) - needed - OPTIONAL)]
    out += ["has both above and margin, which say two things"] if {"above", "margin"} <= set(claim) else []
    out += ["margin must be above 0 points"] if float(claim.get("margin", 1)) <= 0 else []
    for wanted in (side for part in sides(claim) for _, side in part):
        if "objective" in wanted:
            out.append("selects by the label objective, which is ted_ft for a fine-tuned start; say objective.name")
        if isinstance(wanted.get("objective.name"), list):
            out.append("averages over a list of methods; write one claim each, with for")
    return list(dict.fromkeys(out))
