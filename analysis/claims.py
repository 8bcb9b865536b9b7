"""``kdexp claims STUDY``: the papers' claims as pre-stated tests, evaluated on the runs that a study has.

A claim is a contrast of cells (``analysis.contrasts``) on the tasks that have signal (``analysis.gate``), in points,
positive where the claim points; ``analysis.verdicts`` turns it into **supported**, **refuted**, **negligible** or
**undecided**. **Not run** where a side has no runs. ``docs/evidence.md`` says the rules in words.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from . import cli, designs, gate, render, statements, verdicts
from .collect import Collected
from .contrasts import contrast
from .estimate import Estimate
from .evidence import NOTHING, Evidence, Scores, gather, partial_tasks
from .power import detectable


@dataclass(frozen=True)
class Verdict:
    """One claim on one study; effects in points.

    ``low`` and ``high``: 95 % interval. ``p``: two-sided, of the claim. ``holm``: corrected over the study's primary
    claims, NaN for the others. ``sees``: the effect that this study would find with a power of 0.8. ``above``,
    ``delta``: as in ``verdicts.Trial``. ``dropped``: tasks that do not count, with the reason. ``partial``: a task is
    a partial set.
    """

    id: str
    says: str
    verdict: str
    primary: bool = False
    effect: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    holm: float = math.nan
    sees: float = math.nan
    above: float = 0.0
    delta: float = math.nan
    seeds: int = 0
    tasks: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    partial: bool = False
    why: str = ""
    paper: str = ""
    expect: str = ""

    @property
    def said(self) -> str:
        """The verdict for people, with "(partial)" where a task is a partial set."""
        return self.verdict + (" (partial)" if self.partial else "")


def evaluate(
    collected: Collected, claims: list[dict[str, Any]] | None = None, split: str = "validation"
) -> list[Verdict]:
    """Every claim on a study; claims that it has no runs for say so.

    ``claims``: the shipped ones if not given. The study's primary claims are corrected together.
    ``split``: whose scores count; which tasks have signal is told by validation in any case.
    """
    chosen = statements.load() if claims is None else claims
    known, delta = designs.entry(collected.study)
    signal, scores = gate.signals(collected), Scores(collected, split)
    drafts, trials = [], []
    for claim in chosen:
        evidence = gather(scores, claim, signal)
        stated = _stated(claim, claim["id"] in known.primary, delta)
        trial = _trial(evidence, stated)
        trials.append(trial)
        drafts.append(_draft(collected, stated, evidence, trial))
    primary = [index for index, one in enumerate(drafts) if one.primary]
    family = max(len(known.primary), 1)
    holm = verdicts.corrected([trials[index] for index in primary], len(known.primary))
    for index, p in zip(primary, holm, strict=True):
        drafts[index] = replace(drafts[index], holm=p)
    decided = [_decided(one, trial, family if one.primary else 1) for one, trial in zip(drafts, trials, strict=True)]
    return _controlled(decided, chosen)


def _stated(claim: dict[str, Any], primary: bool, delta: float) -> Verdict:
    """What is known of a verdict before any run: the claim, what it must exceed, and below what it does not matter."""
    above = statements.threshold(claim)
    return Verdict(
        claim["id"],
        claim["says"],
        "not run",
        primary,
        above=above,
        delta=math.nan if above else float(claim.get("negligible", delta)),
        paper=claim["paper"],
        expect=str(claim.get("expect", "")),
    )


def _trial(evidence: Evidence, stated: Verdict) -> verdicts.Trial | None:
    """The claim's estimates; None if a part has no task."""
    if not all(evidence.parts):
        return None
    parts = tuple(contrast(list(blocks.values())) for blocks in evidence.parts)
    return verdicts.Trial(parts, stated.above, stated.delta)


def _draft(collected: Collected, stated: Verdict, evidence: Evidence, trial: verdicts.Trial | None) -> Verdict:
    """All of a verdict but its word."""
    dropped = tuple(f"{task}: {why}" for task, why in sorted(evidence.dropped.items()))
    if trial is None:
        if not dropped:
            return replace(stated, why=evidence.absent)
        return replace(stated, verdict="undecided", dropped=dropped, why="no task counts")
    tasks = sorted({task for blocks in evidence.parts for task in blocks})
    weak = trial.weakest
    return replace(
        stated,
        effect=weak.value,
        low=weak.low,
        high=weak.high,
        p=trial.p,
        seeds=trial.seeds,
        tasks=tuple(tasks),
        dropped=dropped,
        partial=bool(partial_tasks(collected) & set(tasks)),
        why=_why(weak, trial.seeds),
    )


def _why(weak: Estimate, seeds: int) -> str:
    """Why there can be no verdict, empty if there can be one."""
    if seeds < 2:
        return "one seed"
    if math.isnan(weak.low):
        return "no spread between seeds"
    return f"{seeds} seeds; a verdict needs {verdicts.SEEDS}" if seeds < verdicts.SEEDS else ""


def _decided(one: Verdict, trial: verdicts.Trial | None, family: int) -> Verdict:
    """The verdict with its word and what the study could have seen."""
    if trial is None:
        return one
    weak = trial.weakest
    said = verdicts.word(trial, one.holm if one.primary else one.p, verdicts.family_level(family))
    small = said in ("supported", "refuted") and trial.inside(verdicts.family_level(family))
    why = f"but inside ± {trial.delta:g}: too small to matter" if small else one.why
    return replace(one, verdict=said, why=why, sees=detectable(weak.error, weak.df, alpha=verdicts.ALPHA / family))


def _controlled(decided: list[Verdict], chosen: list[dict[str, Any]]) -> list[Verdict]:
    """Verdicts, with those taken back whose control does not agree: an effect told from 0, or larger than delta."""
    by_id = {one.id: one for one in decided}
    out = []
    for one, claim in zip(decided, chosen, strict=True):
        control = by_id.get(claim.get("control", ""))
        if "control" not in claim or one.verdict == "not run":
            out.append(one)
        elif control is None or math.isnan(control.effect):
            out.append(replace(one, verdict="undecided", why=f"its control {claim['control']} was not run"))
        elif control.verdict in ("supported", "refuted") or abs(control.effect) > control.delta:
            why = f"its control {control.id} does not agree ({control.effect:+.2f} points)"
            out.append(replace(one, verdict="undecided", why=why))
        else:
            out.append(one)
    return out


def _row(one: Verdict) -> list[str]:
    """A verdict as the cells of a table."""
    interval = f"[{one.low:+.2f}, {one.high:+.2f}]" if not math.isnan(one.low) else one.why or "–"
    effect, sees = (f"{v:{sign}.2f}" if not math.isnan(v) else "–" for v, sign in ((one.effect, "+"), (one.sees, "")))
    p, holm = (f"{v:.3g}" if not math.isnan(v) else "–" for v in (one.p, one.holm))
    printed = f" (printed: {one.expect})" if one.expect else ""
    role = "primary" if one.primary else "exploratory"
    said = f"**{one.said}**" + (f" ({one.why})" if one.why and not math.isnan(one.low) else "")
    return [
        f"{one.says}{printed} `{one.id}`",
        role,
        said,
        effect,
        interval,
        p,
        holm,
        sees,
        str(one.seeds),
        render.md(", ".join(one.tasks)) or "–",
    ]


def notes(judged: list[Verdict]) -> list[str]:
    """What a reader of the verdicts must know; the tasks that fell out, and the claims that were not run."""
    tested = [one for one in judged if one.verdict != "not run"]
    deltas = sorted({one.delta for one in judged if not math.isnan(one.delta)})
    margins = [f"{one.id} above {one.above:+g}" for one in tested if one.above]
    primary = sum(one.primary for one in judged)
    dropped: dict[str, list[str]] = {}
    for one in tested:
        for words in one.dropped:
            dropped.setdefault(words, []).append(one.id)
    everywhere = [words for words, ids in dropped.items() if len(ids) == len(tested)]
    out = [
        "Effect in points, positive where the claim points: paired by seed, averaged over the tasks named, its error "
        "pooled over the study's cells; of a claim with several parts, the weakest.",
        f"Supported: the effect lies above 0 (p < {verdicts.ALPHA}, two-sided); refuted: below; negligible: the "
        f"interval lies inside ± {' or '.join(f'{delta:g}' for delta in deltas)} points; undecided: none of these. "
        f"No verdict below {verdicts.SEEDS} seeds. Sees: the effect that would have been found with a power of 0.8.",
        (
            f"Primary: the {primary} claims that the study is run for; their p is corrected by Holm over exactly "
            f"these, and negligible asks for the {100 * verdicts.family_level(primary):.2f} % interval. All others are "
            "exploratory."
        )
        if primary
        else "The study has stated no primary claims: all verdicts are exploratory, not corrected for their number.",
    ]
    out += [f"Against another value than 0: {'; '.join(margins)} points."] if margins else []
    out += [f"Counts in no claim: {words}." for words in everywhere]
    out += [
        f"Left out of {', '.join(f'`{name}`' for name in ids)}: {words}."
        for words, ids in dropped.items()
        if words not in everywhere
    ]
    absent = [one for one in judged if one.verdict == "not run"]
    near = [f"`{one.id}` ({one.why})" for one in absent if one.why != NOTHING]
    rest = [f"`{one.id}`" for one in absent if one.why == NOTHING]
    out += [f"Not run here, one side is missing: {', '.join(near)}."] if near else []
    return out + ([f"Not run here: {', '.join(rest)}."] if rest else [])


def markdown(judged: list[Verdict], study: str, split: str = "validation") -> str:
    """Claims that have runs as a table, primary ones first, and the notes."""
    where = "" if split == "validation" else f" on {split}"
    head = ["claim", "role", "verdict", "effect", "95 % interval", "p", "p (Holm)", "sees", "seeds", "tasks"]
    body = [_row(one) for one in sorted(judged, key=lambda one: not one.primary) if one.verdict != "not run"]
    rule = ["---", "---", "---", "---:", "---", "---:", "---:", "---:", "---:", "---"]
    table = "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *body])
    text = table if body else "This study has the runs of no claim."
    notes_ = "\n".join(f"- {note}" for note in notes(judged))
    return f"### {render.md(study)}: claims{where}\n\n{text}\n\n{notes_}\n"


PURPOSE = "Evaluate the claims of analysis/claims.yaml on a study; writes <root>/<study>/tables/claims.md and .csv."
KEYS = {
    **cli.COMMON,
    "split": cli.Key("whose scores are judged: validation, or a further split that tasks report beside", "validation"),
}


def run(options: dict[str, Any]) -> cli.Answer:
    """Collect, evaluate, write."""
    from . import tables

    collected, split = tables.collected(options), options["split"]
    have = sorted(set(collected.scores.loc[collected.scores["who"] == "student", "split"]))
    if split not in have:
        there = ", ".join(have)
        raise ValueError(f"split={split}: the runs of {collected.study} have no such scores; they have {there}")
    judged = evaluate(collected, split=split)
    text = markdown(judged, collected.study, split)
    stem = "claims" if split == "validation" else f"claims-{split}"
    folder = collected.folder / "tables"
    written = [
        tables.write(folder / f"{stem}.md", text),
        tables.write(folder / f"{stem}.csv", render.csv(pd.DataFrame([vars(one) for one in judged]))),
    ]
    data = {"study": collected.study, "split": split, "claims": [vars(one) for one in judged]}
    return cli.Answer(text, data, written)


VERB = cli.verb(PURPOSE, KEYS, run)


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out the verb."""
    return cli.main("claims", VERB, arguments)


if __name__ == "__main__":
    sys.exit(main())
