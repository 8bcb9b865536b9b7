"""What a study says, in one paragraph: before its tables, and as strong as they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from . import designs, gate, render
from .claims import Verdict
from .collect import Collected
from .contrasts import pair
from .grid import ALPHA, Grid, Row, pools
from .records import FINETUNE

VERDICTS = ("supported", "refuted", "negligible", "undecided")


def paragraph(found: Collected, grid: Grid, verdicts: Sequence[Verdict]) -> str:
    """Return the paragraph: what was run, the best row, what distilling adds, the claims, what has no weight."""
    rows = [row for row in grid.rows if row.kind not in ("majority", "teacher") and row.average is not None]
    said = [_size(found), *([_best(rows), _distilling(grid, rows)] if rows else []), _claims(verdicts), _doubts(found)]
    return " ".join(filter(None, said))


def question(found: Collected) -> str:
    """Return what the study asks, as its design says; '' for a study of one's own."""
    known = designs.entry(found.study)[0]
    return known.purpose if known in designs.STUDIES.values() else ""


def _size(found: Collected) -> str:
    runs, missing = found.runs, len(found.missing)
    counts = (len(runs), "run"), (runs["task"].nunique(), "task"), (runs["seed"].nunique(), "seed")
    some, tasks, seeds = (f"{count} {word}{'s' if count != 1 else ''}" for count, word in counts)
    still = f"; {missing} more are still to come" if missing else ""
    return f"{some} on {tasks} with up to {seeds}{still}."


def _name(row: Row) -> str:
    return " / ".join(filter(None, row.labels))


def _best(rows: list[Row]) -> str:
    best = max(rows, key=lambda row: row.average.mean)  # type: ignore[union-attr]
    score = render.cell_text(best.average, average=True)
    near = sum(row.average.mark == "top" for row in rows) - 1  # type: ignore[union-attr]
    if best.average and best.average.mark == "best":
        return f"Best average: {_name(best)}, {score}; the seeds tell it from every other row."
    if near > 0:
        others = "another row" if near == 1 else f"{near} other rows"
        return f"Highest average: {_name(best)}, {score}; the seeds cannot tell it from {others}."
    return f"Highest average: {_name(best)}, {score}; one seed cannot say whether that is more than chance."


def _distilling(grid: Grid, rows: list[Row]) -> str:
    """The best row that distils, against the same without: only where both start alike."""
    objective = grid.keys.index("objective")

    def start(row: Row) -> tuple[str, ...]:
        return row.start, *(label for index, label in enumerate(row.labels) if index != objective)

    taught = [row for row in rows if row.kind != FINETUNE]
    if not taught:
        return ""
    best = max(taught, key=lambda row: row.average.mean)  # type: ignore[union-attr]
    plain = next((row for row in rows if row.kind == FINETUNE and start(row) == start(best)), None)
    if plain is None:
        return ""
    counted = [index for index, column in enumerate(grid.columns) if column.counted]
    gain = pair(pools(rows, counted), rows.index(best), rows.index(plain))
    if gain is None or gain.n < 2 or gain.low != gain.low:
        return ""
    sure = "" if gain.p < ALPHA else ", which may be chance"
    return (
        f"Against the same start without distillation, {_name(best)} is {gain.value:+.1f} points "
        f"[{gain.low:+.1f}, {gain.high:+.1f}]{sure}."
    )


def _claims(verdicts: Sequence[Verdict]) -> str:
    primary = [one for one in verdicts if one.primary]
    if not primary:
        return ""
    counts = Counter(one.verdict for one in primary)
    words = dict.fromkeys(f"{counts[verdict]} {verdict}" for verdict in (*VERDICTS, *sorted(counts)) if counts[verdict])
    claims = "claim" if len(primary) == 1 else "claims"
    return f"Of the {len(primary)} {claims} that it was planned for: {', '.join(words)}."


def _doubts(found: Collected) -> str:
    without = [task for task, one in gate.signals(found).items() if one.why()]
    if not without:
        return ""
    return f"No weight on {', '.join(without)}: a task whose teacher or students hardly beat the majority answer."
