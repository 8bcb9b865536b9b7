"""What each form costs and gains, as one table and one picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdexp.common import files
from kdexp.delivery.export import Row

NAME = "table"


def lines(rows: Sequence[Row], metric: str, stated: dict[str, Any]) -> list[str]:
    """Return the table as Markdown, with what has to be known to read it."""
    head = [
        "model", "form", f"{metric} x 100", "against pytorch", "outputs apart", "ms, 1 text", "p95", "ms, 32 texts",
        "p95", "texts/s", "memory MB", "size MB",
    ]  # fmt: skip
    told = ["| " + " | ".join(head) + " |", "|---|---|" + "---:|" * (len(head) - 2)]
    told += ["| " + " | ".join(_cells(row)) + " |" for row in rows if not row.failed]
    told += ["", *(f"- {row.who} as {row.form} could not be made: {row.failed}" for row in rows if row.failed)]
    told += [f"- {row.who} as {row.form} could not be timed: {row.untimed}" for row in rows if row.untimed]
    note = "Scores on validation with 95 % intervals over new examples; differences are taken example by example."
    if any(row.times for row in rows):
        note += (
            f" Times: medians on {stated['hardware']}, {stated['threads']} thread(s), texts of validation with their "
            "real lengths, each form in a process of its own; memory is that process's peak, libraries included."
        )
    return [*told, "", note, *(f"Of the rows: {said}." for said in stated["notes"])]


def _cells(row: Row) -> list[str]:
    times = row.times
    score = f"{100 * row.score:.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]"
    gap = "" if row.gap is None else "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(round(100 * v, 1) + 0.0 for v in row.gap))
    cells = [row.who, row.form, score, gap, "" if row.gap is None else f"{row.apart:.1e}"]
    for size in ("1", "32"):
        cells += [f"{times[key][size]:.1f}" if times else "" for key in ("latency_ms", "p95_ms")]
    cells += [f"{times[key]:.0f}" if times else "" for key in ("examples_per_s", "memory_mb")]
    return [*cells, f"{row.size / 1e6:.1f}"]


def write(folder: Path, rows: Sequence[Row], metric: str, stated: dict[str, Any]) -> None:
    """Write table.md, table.csv, table.json, and the picture if there are times."""
    files.write_text(folder / f"{NAME}.md", "\n".join(lines(rows, metric, stated)) + "\n")
    flat = [_flat(row) for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(flat[0]))
    writer.writeheader()
    writer.writerows(flat)
    files.write_text(folder / f"{NAME}.csv", text.getvalue())
    files.write_json(folder / f"{NAME}.json", {"metric": metric, "rows": flat, **stated})
    if any(row.times for row in rows):
        _picture(folder / "pareto.png", rows, metric)


def _flat(row: Row) -> dict[str, Any]:
    gap, times = row.gap or (None, None, None), row.times
    return {
        "model": row.who, "form": row.form, "score": row.score, "low": row.low, "high": row.high,
        "difference": gap[0], "difference_low": gap[1], "difference_high": gap[2], "outputs_apart": row.apart,
        **{
            f"{name}_{size}": times.get(key, {}).get(size)
            for name, key in (("ms", "latency_ms"), ("p95_ms", "p95_ms"))
            for size in ("1", "32")
        },
        "examples_per_s": times.get("examples_per_s"), "memory_mb": times.get("memory_mb"), "size_bytes": row.size,
        "failed": row.failed, "untimed": row.untimed,
    }  # fmt: skip


def _picture(path: Path, rows: Sequence[Row], metric: str) -> None:
    """Draw score against latency of one text; forms that nothing beats in both are joined."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    points = sorted((row.times["latency_ms"]["1"], 100 * row.score, row) for row in rows if row.times)
    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    best, front = float("-inf"), list[tuple[float, float]]()
    for ms, score, row in points:
        bars = [[max(0.0, score - 100 * row.low)], [max(0.0, 100 * row.high - score)]]
        axes.errorbar(ms, score, yerr=bars, fmt="s" if row.who == "teacher" else "o", capsize=3)
        axes.annotate(f"{row.who} {row.form}", (ms, score), xytext=(5, 5), textcoords="offset points", fontsize=8)
        if score > best:
            best = score
            front.append((ms, score))
    axes.plot(*zip(*front, strict=True), color="0.7", zorder=0)
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds for one text (median)")
    axes.set_ylabel(f"{metric} x 100 on validation")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
