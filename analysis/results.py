"""``kdexp results``: the page of results, every table and verdict of it, from finished desk studies.

The words on the page that are no numbers are the studies' own: ``analysis/designs.py`` and ``analysis/claims.yaml``.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdexp.common import files

from . import chosen, claims, cli, designs, gate, notes, records, render, statements
from .collect import Collected, collect
from .compare import QUESTIONS, Comparison, answer
from .contrasts import contrast
from .estimate import Estimate
from .evidence import Scores, gather
from .grid import build

HEAD = """\
# What the desk studies say

Written by `python -m analysis.results` from the runs; nothing on this page was typed by hand. Each study is the desk
form of a paper's: it asks the paper's question of a small teacher and a few thousand examples, so a verdict here says
nothing about BERT-base. A study is run, and judged alone, by

    KDEXP_DATA=/path/to/data python -m kdexp +experiment=NAME scale=desk
    python -m analysis.studies.NAME study=NAME_desk

Cells are the validation score x 100, mean and sample standard deviation over seeds; the epoch was chosen on a
held-out part of train where the study's line names no other rule. Bold and ≈, groups, averages, verdicts and the
three intervals are explained in [evidence.md](evidence.md). Effects are in points, positive where the claim points. A
primary claim is one that the study was planned for; its p is corrected by Holm over the study's primary claims.
*Negligible* means inside ± δ, δ stated before the runs.

Where a study's line below names `sst2_test`, it asks on SST-2 alone: 12,000 rows of train, a tenth of them held out,
and the original SST's 1,821 test sentences to be scored on. A verdict holds for this task. Two others were tried and
left out, both for what their students' seeds do and not for what a method does there: QNLI's part at hand leaves some
students at chance, and on the embedded task, whose validation asks about other modules than train has, the seeds of one
cell lie so far apart that a study of this size sees nothing but a collapse.

Groups of `init_ablation_desk`, `pea_kd_desk`, `pkd_glue_desk`, `pro_kd_glue_desk` and `ted_glue_desk` are still those
of an older, coarser rule, by which a pair counted as apart only if all pairs around it in the order of averages did:
rows that share a letter there may still have been told apart.
"""

TUNING = "tune"
"""The form of a study in which settings are chosen for its other forms."""


def page(studies: Sequence[Collected], before: str = "") -> str:
    """The whole page.

    Args:
        before: the page as it was; its sections of studies that are not among these stay as they are.
    """
    parts = sections(before) | {one.study: section(one) for one in studies}
    return "\n".join([HEAD, *(parts[name] for name in sorted(parts, key=_place))])


def _place(study: str) -> tuple[int, bool, str]:
    """Where a study stands on the page: in the order of the shipped ones, the desk form before other forms of it."""
    known = list(designs.STUDIES.values())
    entry, _ = designs.entry(study)
    return known.index(entry) if entry in known else len(known), not study.endswith("_desk"), study


def sections(page: str) -> dict[str, str]:
    """The sections of a page by the studies that they are of.

    Raises:
        ValueError: a page that this command has not written: it would be lost.
    """
    found: dict[str, str] = {}
    for part in page.split("\n## ")[1:]:
        study = re.match(r".*\n\n`([^`]+)`: ", part)
        if study is None:
            raise ValueError(
                f"the page has a section '{part.splitlines()[0]}' that is of no study: it was not written by this "
                "command, which would drop it; move it, or name another page with out=FILE"
            )
        found[study[1]] = f"## {part.strip()}\n"
    return found


def section(collected: Collected) -> str:
    """One study: what was run, its table, a paragraph for each primary claim, a table of the others.

    Of a form that tunes (``NAME_tune``) no row is compared with another: its table is what it chose, and what it chose
    from.
    """
    known, delta = designs.entry(collected.study)
    form = re.sub(rf"^({'|'.join(designs.STUDIES)})_", "", collected.study)
    head = known.purpose.rstrip(".") + (f" ({form})" if form not in ("desk", collected.study) else "")
    if form == TUNING:
        return "\n\n".join([f"## {head}", design(collected, delta), chosen.table(chosen.chosen(collected))]) + "\n"
    table = build(collected, layout=known.layout)
    judged = [one for one in claims.evaluate(collected) if one.id.startswith((*known.claims, *known.primary))]
    primary = [one for one in judged if one.primary]
    others = [one for one in judged if not one.primary and one.verdict != "not run"]
    parts = [f"## {head}", design(collected, delta), render.markdown_table(table)]
    if primary:
        parts.append("\n\n".join(paragraph(collected, one) for one in primary))
    if others:
        rows = [[f"{one.says} `{one.id}`", _effect(one), one.said, str(one.seeds)] for one in others]
        parts.append("Exploratory, not corrected for their number:\n\n" + _table("claim|effect|verdict|seeds", rows))
    dropped = sorted({words for one in judged for words in one.dropped})
    parts += [f"Counts in no claim: {'; '.join(dropped)}."] if dropped else []
    parts += [f"**What it does not say.** {known.silent}"] if known.silent else []
    return "\n\n".join(parts) + "\n"


def design(collected: Collected, delta: float) -> str:
    """One paragraph: which study, how many runs, of what, at what cost, on what machine and in which numbers."""
    runs, missing = collected.runs, len(collected.missing)
    seeds = sorted(runs.groupby(["task", "settings_hash"])["seed"].nunique().unique())
    counts = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    whole = (
        f"{len(runs)} runs"
        if not missing
        else f"{len(runs)} of {len(runs) + missing} runs (the others are still to come)"
    )
    chosen = sorted(set(runs["selection"]) - {"heldout"})
    rule = f"the epoch was chosen on {', '.join(notes.SELECTED.get(one, one) for one in chosen)}; " if chosen else ""
    names = [
        f"{word} {', '.join(sorted(set(runs[key])))}" for key, word in (("objective", "objectives"), ("init", "starts"))
    ]
    where = " / ".join(dict.fromkeys(f"{one.hardware} in {one.dtype}" for one in runs.itertuples()))
    return (
        f"`{collected.study}`: {whole}; {'; '.join(names)}; tasks "
        f"{', '.join(sorted(set(runs['task'])))}; {counts} {'seed' if counts == '1' else 'seeds'} a cell; {rule}"
        f"teacher {' / '.join(sorted(set(runs['teacher'])))}, students {' / '.join(sorted(set(runs['student'])))}; "
        f"δ = {delta:g} points; {records.computed(runs['work']) / 3600:.1f} hours of computing on {where}."
    )


def paragraph(collected: Collected, one: claims.Verdict) -> str:
    """A primary claim: verdict, effect and the three intervals, what would have been seen."""
    if one.verdict == "not run" or math.isnan(one.effect):
        why = one.why or "; ".join(one.dropped)
        return f"**{one.says.rstrip('.')}** (`{one.id}`): **{one.said}**" + (f", {why}." if why else ".")
    compared = intervals(collected, one.id)
    lines = [f"{question} {_interval(compared.answers.get(question))}" for question in QUESTIONS]
    sees = "" if math.isnan(one.sees) else f" The study would have found {one.sees:.1f} points with a power of 0.8."
    printed = f" The paper prints {one.expect}." if one.expect else ""
    why = f" ({one.why})" if one.why else ""
    return (
        f"**{one.says.rstrip('.')}** (`{one.id}`): **{one.said}**{why}. "
        f"Effect {one.effect:+.2f} points on {', '.join(one.tasks)}; {one.seeds} "
        f"{'seed' if one.seeds == 1 else 'seeds'}; p (Holm) {_p(one.holm)}. "
        f"95 % intervals: {'; '.join(lines)}.{sees}{printed}" + (f" {compared.missing}." if compared.missing else "")
    )


def intervals(collected: Collected, claim: str) -> Comparison:
    """The three questions for a claim; of several parts, for the weakest, which is the one that its verdict reports."""
    (stated,) = (one for one in statements.load() if one["id"] == claim)
    scores = Scores(collected)
    parts = gather(scores, stated, gate.signals(collected)).parts
    weakest = min(parts, key=lambda blocks: _low(contrast(list(blocks.values()))))
    return answer(scores, weakest, stated.get("metric", "chosen"))


def _low(one: Estimate) -> float:
    return -math.inf if math.isnan(one.low) else one.low


def _interval(one: Estimate | None) -> str:
    return "no answer" if one is None or math.isnan(one.low) else f"[{one.low:+.2f}, {one.high:+.2f}]"


def _effect(one: claims.Verdict) -> str:
    return f"{one.effect:+.2f} [{one.low:+.2f}, {one.high:+.2f}]" if not math.isnan(one.low) else f"{one.effect:+.2f}"


def _p(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3g}"


def _table(head: str, rows: list[list[str]]) -> str:
    cells = [head.split("|"), ["---"] * len(head.split("|")), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def shipped() -> list[str]:
    """The desk forms of all shipped experiments, in the page's order."""
    return [f"{name}_desk" for name in designs.STUDIES]


PURPOSE = "Write the page of results from the finished desk studies of the shipped experiments."
KEYS = {
    "root": cli.COMMON["root"],
    "source": cli.Key(cli.COMMON["source"].help, "folders", cli.COMMON["source"].values),
    "uri": cli.COMMON["uri"],
    "studies": cli.Key(
        "names of studies; empty: the desk forms of all shipped experiments that have finished runs", ""
    ),
    "incomplete": cli.COMMON["incomplete"],
    "out": cli.Key("the page; its sections of studies without runs here stay as they are", "docs/results.md"),
}


def run(options: dict[str, Any]) -> cli.Answer:
    """Collect, judge, write."""
    root = Path(options["root"])
    names = [name for name in options["studies"].split(",") if name]
    wanted = names or [name for name in shipped() if any(root.glob(f"{name}/*/result.json"))]
    if not wanted:
        raise ValueError(f"no study in {root} has finished runs; looked for {', '.join(shipped())}")
    studies = [
        collect(name, root, options["source"], options["uri"], incomplete=options["incomplete"]) for name in wanted
    ]
    out = Path(options["out"])
    before = out.read_text(encoding="utf-8") if out.is_file() else ""
    stay = [name for name in sections(before) if name not in wanted]
    files.write_text(out, page(studies, before))
    said = f" As they were, without runs here: {', '.join(stay)}." if stay else ""
    return cli.Answer(f"The page of {', '.join(wanted)}.{said}", {"studies": wanted, "unchanged": stay}, [out])


VERB = cli.verb(PURPOSE, KEYS, run)


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out the verb."""
    return cli.main("results", VERB, arguments)


if __name__ == "__main__":
    sys.exit(main())
