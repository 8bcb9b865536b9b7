"""``python -m analysis.claims study=NAME``: the papers' claims as pre-stated tests, evaluated on the runs that a
study has.

Every claim becomes one number a seed and task (x100, positive where the claim points), then ``stats.mean_over_tasks``:
**supported** if the 95 % interval lies above the claim's margin, **refuted** if it lies below 0, else **undecided**;
**not run** where
a side has no runs. No spread between seeds, or a single seed, is undecided.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from analysis import cli, stats
from analysis.collect import Collected
from analysis.select import select, settings_columns

KINDS = {"contrast": ("a", "b"), "spread": ("a", "b", "over"), "chain": ("of",), "gap": ("a", "b", "large", "small")}
OPTIONAL = {"within", "metric", "above", "expect"}


@dataclass(frozen=True)
class Verdict:
    """One claim on one study; ``effect`` and interval in points, ``p`` two-sided, ``holm`` over the study's claims."""

    id: str
    says: str
    verdict: str
    effect: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    holm: float = math.nan
    seeds: int = 0
    tasks: tuple[str, ...] = ()
    why: str = ""
    paper: str = ""
    expect: str = ""


def load(path: Path | None = None) -> list[dict[str, Any]]:
    """The claims, checked. ``ValueError`` names the claim and what is wrong with it."""
    path = path or Path(__file__).with_name("claims.yaml")
    claims = yaml.safe_load(path.read_text(encoding="utf-8")) or []
    seen: set[str] = set()
    for claim in claims:
        name = str(claim.get("id", claim))
        if claim.get("kind") not in KINDS:
            raise ValueError(f"{path}: claim {name}: kind {claim.get('kind')!r} is not one of {', '.join(KINDS)}")
        needed = {"id", "paper", "says", "kind", "tasks", *KINDS[claim["kind"]]}
        problems = [f"lacks {key}" for key in sorted(needed - set(claim))]
        problems += [f"has an unknown key {key}" for key in sorted(set(claim) - needed - OPTIONAL)]
        problems += ["is there twice"] if name in seen else []
        if problems:
            raise ValueError(f"{path}: claim {name}: {'; '.join(problems)}")
        seen.add(name)
    return list(claims)


def _scores(found: Collected, wanted: dict[str, Any], claim: dict[str, Any], extra: tuple[str, ...] = ()) -> pd.Series:
    """Validation scores x100 of the selected runs, averaged to (task, seed, *within, *extra)."""
    runs = select(found.runs, wanted)
    if claim["tasks"] != "all":
        runs = runs[runs["task"].isin(claim["tasks"])]
    within = claim.get("within", [])
    runs = settings_columns(runs, [key for key in within if "." in key], strict=False)
    keep = ["task", "seed", *dict.fromkeys([*within, *extra])]
    scores = found.scores[(found.scores["who"] == "student") & (found.scores["split"] == "validation")]
    scores = scores.merge(runs[["run", "metric", *keep]].rename(columns={"metric": "chosen"}), on="run")
    metric = claim.get("metric", "chosen")
    scores = scores[scores["metric"] == (scores["chosen"] if metric == "chosen" else metric)]
    return scores.groupby(keep)["value"].mean() * 100


def _paired(a: pd.Series, b: pd.Series) -> pd.Series:
    """a - b where both are there, then averaged to one value a (task, seed)."""
    both = pd.concat([a, b], axis=1, join="inner", keys=["a", "b"])
    return (both["a"] - both["b"]).groupby(level=["task", "seed"]).mean()


def _range(scores: pd.Series, over: str, values: set[Any]) -> pd.Series:
    """Largest minus smallest over the shared values of ``over``, a (task, seed); only where all of them are there."""
    shared = scores[scores.index.get_level_values(over).isin(values)]
    grouped = shared.groupby(level=["task", "seed"])
    ranges = grouped.max() - grouped.min()
    return ranges[grouped.size() == len(values)]


def _effects(found: Collected, claim: dict[str, Any]) -> list[pd.Series]:
    """One series of per-(task, seed) effects for every part of the claim; all must hold."""
    kind = claim["kind"]
    if kind == "chain":
        steps = [_scores(found, one, claim) for one in claim["of"]]
        return [_paired(upper, lower) for upper, lower in itertools.pairwise(steps)]
    if kind == "contrast":
        return [_paired(_scores(found, claim["a"], claim), _scores(found, claim["b"], claim))]
    if kind == "spread":
        over = claim["over"]
        a, b = (_scores(found, claim[side], claim, (over,)) for side in "ab")
        values = set(a.index.get_level_values(over)) & set(b.index.get_level_values(over))
        return [_paired(_range(b, over, values), _range(a, over, values))] if len(values) > 1 else [a.iloc[:0]]
    gains = [
        _paired(
            _scores(found, {**claim["a"], **claim[size]}, claim), _scores(found, {**claim["b"], **claim[size]}, claim)
        )
        for size in ("large", "small")
    ]
    return [_paired(*gains)]


def _judge(effects: pd.Series, above: float) -> tuple[str, stats.Estimate | None]:
    if not len(effects):
        return "not run", None
    estimate = stats.mean_over_tasks([group.to_numpy() for _, group in effects.groupby(level="task")])
    if math.isnan(estimate.low):
        return "undecided", estimate
    if estimate.low > above:
        return "supported", estimate
    return ("refuted" if estimate.high < 0 else "undecided"), estimate


def evaluate(found: Collected, claims: list[dict[str, Any]] | None = None) -> list[Verdict]:
    """Every claim on a study; claims that it has no runs for say so."""
    out = []
    for claim in load() if claims is None else claims:
        base = Verdict(claim["id"], claim["says"], "not run", paper=claim["paper"], expect=str(claim.get("expect", "")))
        parts = [(effects, *_judge(effects, float(claim.get("above", 0)))) for effects in _effects(found, claim)]
        if any(estimate is None for _, _, estimate in parts):
            out.append(replace(base, why=_absent(found, claim)))
            continue
        # a chain is as strong as its weakest step: an intersection-union test
        words = [verdict for _, verdict, _ in parts]
        verdict = "refuted" if "refuted" in words else ("undecided" if "undecided" in words else "supported")
        effects, one = min(
            ((e, one) for e, _, one in parts if one),
            key=lambda part: -math.inf if math.isnan(part[1].low) else part[1].low,
        )
        tasks = tuple(sorted(set(effects.index.get_level_values("task"))))
        why = "one seed" if one.n < 2 else ("no spread between seeds" if math.isnan(one.low) else "")
        out.append(
            replace(
                base,
                verdict=verdict,
                effect=one.value,
                low=one.low,
                high=one.high,
                p=one.p,
                seeds=one.n,
                tasks=tasks,
                why=why,
            )
        )
    adjusted = stats.holm([one.p for one in out])
    return [replace(one, holm=float(value)) for one, value in zip(out, adjusted, strict=True)]


def _absent(found: Collected, claim: dict[str, Any]) -> str:
    """Which side has no runs, or that the sides share no seed and task."""
    if claim["kind"] == "gap":
        sides = [{**claim[s], **claim[z]} for s in "ab" for z in ("large", "small")]
    else:
        sides = claim.get("of") or [claim["a"], claim["b"]]
    empty = [one for one in sides if not len(_scores(found, one, claim))]
    words = [
        ", ".join(f"{key}={'|'.join(value) if isinstance(value, list) else value}" for key, value in one.items())
        for one in empty
    ]
    return f"no runs with {'; '.join(words)}" if words else "the sides share no seed, task and start"


def markdown(verdicts: list[Verdict], study: str) -> str:
    """Decided claims as a table, the others by name."""
    body = [
        "| claim | verdict | effect (points) | 95 % interval | p | p (Holm) | seeds | tasks |",
        "| --- | --- | ---: | --- | ---: | ---: | ---: | --- |",
    ]
    for one in verdicts:
        if one.verdict != "not run":
            gap = f"[{one.low:+.2f}, {one.high:+.2f}]" if not math.isnan(one.low) else one.why
            p, holm = (f"{v:.3g}" if not math.isnan(v) else "–" for v in (one.p, one.holm))
            expect = f" (printed: {one.expect})" if one.expect else ""
            body.append(
                f"| {one.says}{expect} `{one.id}` | **{one.verdict}** | {one.effect:+.2f} | {gap} | {p} | {holm} "
                f"| {one.seeds} | {', '.join(one.tasks)} |"
            )
    if len(body) == 2:
        body = ["This study has the runs of no claim."]
    rest = [f"`{one.id}` ({one.why})" for one in verdicts if one.verdict == "not run"]
    notes = [
        "Effect: positive where the claim points; paired by seed, averaged over the tasks named; of a chain, "
        "its weakest step.",
        "Supported: the interval lies above 0 (or the claim's margin); refuted: below 0; undecided: it holds 0, "
        "or seeds do not differ.",
        *([f"Not run here: {', '.join(rest)}."] if rest else []),
    ]
    return f"### {study}: claims\n\n" + "\n".join(body) + "\n\n" + "\n".join(f"- {note}" for note in notes) + "\n"


PURPOSE = "Evaluate the claims of analysis/claims.yaml on a study; writes <root>/<study>/tables/claims.md and .csv."


def run(options: dict[str, str]) -> None:
    """Collect, evaluate, write, print."""
    from analysis.tables import collected, write

    found = collected(options)
    verdicts = evaluate(found)
    text = markdown(verdicts, found.study)
    folder = found.folder / "tables"
    written = [
        write(folder / "claims.md", text),
        write(folder / "claims.csv", pd.DataFrame([vars(one) for one in verdicts]).to_csv(index=False)),
    ]
    print(text)
    print("Written:", *written, sep="\n  ")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    return cli.main("analysis.claims", PURPOSE, cli.COMMON, run, arguments)


if __name__ == "__main__":
    sys.exit(main())
