"""Tables and figures of what was measured; ``python -m bench report`` writes them into docs/performance.md."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from kdexp.common import files

PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
PEERS = ("textbook", "textbrewer", "textbrewer-cached", "torchdistill")
OURS = ("kdexp-live", "kdexp-cached")
SPEEDS = "Examples a second of wall time (medians), and how many times as many kdexp makes with a warm cache."
BUCKETED = "b: the other loops had kdexp's own batches, of texts of like lengths."
DETAILS = (
    "What each contestant computes: share of padding among its positions, peak memory of its process, products that it "
    "carried out a second, and their share of the rate that bare products of the same shapes reached in the same run; "
    "spread = (slowest - fastest) / median of the repetitions."
)


def main(arguments: list[str] | None = None) -> int:
    """Write the tables between their markers; the exit code is 1 if nothing was measured."""
    made = argparse.ArgumentParser(prog="python -m bench report", description=__doc__)
    made.add_argument("--out", type=Path, default=Path("outputs/bench"), help="folder of results (outputs/bench)")
    made.add_argument("--page", type=Path, default=PAGE, help="the page whose tables are replaced")
    asked = made.parse_args(sys.argv[1:] if arguments is None else arguments)
    tables = {
        name: found for name, kept in KEPT.items() if (found := [json.loads(p.read_text()) for p in kept(asked.out)])
    }
    if not tables:
        print(f"{asked.out} holds no results: run python -m bench, or python -m bench grid, first.", file=sys.stderr)
        return 1
    text = asked.page.read_text()
    for name, results in tables.items():
        text = insert(text, name, TABLES[name](results))
    files.write_text(asked.page, text)
    print(f"{asked.page}: {', '.join(tables)}")
    return 0


def insert(text: str, name: str, lines: list[str]) -> str:
    """Return a page with other lines between the markers of a table.

    Raises:
        ValueError: the page has no such markers.
    """
    begin, end = f"<!-- bench {name} -->", f"<!-- end of bench {name} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"the page has no place for {name}: it lacks the line {begin} or {end}.")
    return "\n".join([before + begin, "", *lines, "", end]) + after


def rate(one: dict[str, Any] | None, clock: str = "wall") -> float | None:
    """Return the median examples a second of a contestant; None if it was not timed."""
    return 1 / median(one[clock]) if one and one.get(clock) else None


def speed(results: list[dict[str, Any]]) -> list[str]:
    """Return the tables of speeds as lines of Markdown."""
    names = [name for name in (*PEERS, *OURS) if any(name in r["contestants"] for r in results)]
    head = [
        "texts (mean tokens)",
        "models",
        "batch",
        "objective",
        *names,
        *[f"cached : {name}" for name in names if name in PEERS],
    ]
    lines = _origin(results)
    marked = [BUCKETED] if any(_met(result["cell"]) for result in results) else []
    lines += [
        " ".join([SPEEDS, *marked]),
        "",
        _row(head),
        _row(["---", "---", "---:", "---"] + ["---:"] * (len(head) - 4)),
    ]
    notes: list[str] = []
    for result in results:
        cell, who = result["cell"], result["contestants"]
        ours = rate(who.get("kdexp-cached"))
        mean = result["tokens"] / result["examples"]
        cells = [f"{cell['task']} ({mean:.0f})", cell["model"], f"{cell['batch']}{_met(cell)}", cell["objective"]]
        cells += [
            _said(who.get(name), notes, f"{cell['task']} {cell['objective']} {cell['model']}, {name}") for name in names
        ]
        cells += [
            f"{ours / theirs:.1f} x" if ours and (theirs := rate(who.get(name))) else ""
            for name in names
            if name in PEERS
        ]
        lines.append(_row(cells))
    lines += ["", *[f"- {note}" for note in dict.fromkeys(notes)]] if notes else []
    return [*lines, "", *_details(results)]


def _met(cell: dict[str, Any]) -> str:
    """Return a mark for a cell in which all loops met kdexp's own batches."""
    return " b" if cell["order"] == "bucketed" else ""


def _said(one: dict[str, Any] | None, notes: list[str], name: str) -> str:
    if one is None:
        return ""
    value = rate(one)
    why = one.get("differs") or one.get("error")
    if why is not None:
        notes.append(f"{name}: {why}")
        return "another computation" if "differs" in one else "none"
    return f"{value:.1f}" if value else "none"


def _details(results: list[dict[str, Any]]) -> list[str]:
    head = [
        "cell",
        "contestant",
        "ex/s",
        "ex/processor s",
        "spread",
        "padding",
        "memory MB",
        "GFLOP/s",
        "of the products' rate",
    ]
    lines = [DETAILS, "", _row(head), _row(["---"] * 2 + ["---:"] * 7)]
    for result in results:
        cell, who = result["cell"], result["contestants"]
        peak = _products(who.get("gemm"), result["examples"])
        for name, one in who.items():
            value, cpu = rate(one), rate(one, "cpu")
            if value is None or cpu is None:
                continue
            rounds = one["wall"]
            doing = _products(one, result["examples"])
            padding = "" if name == "gemm" else f"{1 - result['tokens'] / one['positions']:.0%}"
            lines.append(
                _row(
                    [
                        f"{cell['task']} {cell['objective']} {cell['model']}, {cell['batch']}{_met(cell)}", name,
                        f"{value:.1f}", f"{cpu:.1f}",
                        f"{(max(rounds) - min(rounds)) / median(rounds):.0%}", padding, f"{one['memory_mb']:.0f}",
                        f"{doing / 1e9:.0f}" if doing else "", f"{doing / peak:.0%}" if doing and peak else "",
                    ]
                )
            )  # fmt: skip
    return lines


def _products(one: dict[str, Any] | None, examples: int) -> float | None:
    """Return the floating-point operations a second of a contestant's products."""
    value = rate(one)
    return one["flops"] / examples * value if one and value and one.get("flops") else None


def _origin(results: list[dict[str, Any]]) -> list[str]:
    """Say once what all results have in common, or what there is."""

    def values(*keys: str) -> str:
        got = []
        for result in results:
            value: Any = result
            for key in keys:
                value = value[key]
            got.append(str(value))
        return ", ".join(dict.fromkeys(got))

    versions = {name: v for result in results for name, v in result["machine"]["versions"].items()}
    return [
        f"Measured {values('machine', 'date')} on {values('machine', 'hardware')}, {values('cell', 'threads')} "
        f"thread(s), {values('cell', 'device')}; {', '.join(f'{k} {v}' for k, v in versions.items())}; "
        f"texts: {values('texts')}; "
        f"other loops meet the examples {values('cell', 'order')}; batch: examples an update.",
        "", f"Measured by: {', '.join(f'`{c}`' for c in dict.fromkeys(r['command'] for r in results))}", "",
    ]  # fmt: skip


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Draw examples a second of all cells, a bar a contestant, on a logarithmic axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [n for n in (*PEERS, *OURS) if any(rate(r["contestants"].get(n)) for r in results)]
    figure, axes = pyplot.subplots(figsize=(max(6.0, 1.1 * len(results) + 2), 4.5), layout="constrained")
    for place, name in enumerate(names):
        heights = [rate(r["contestants"].get(name)) or float("nan") for r in results]
        at = [row + (place - (len(names) - 1) / 2) * 0.8 / len(names) for row in range(len(results))]
        axes.bar(at, heights, 0.8 / len(names), label=name)
    labels = [f"{r['cell']['task']}\n{r['cell']['objective']}\n{r['cell']['model']}" for r in results]
    axes.set_xticks(range(len(results)), labels, fontsize=8)
    axes.set_yscale("log")
    axes.set_ylabel("examples a second")
    axes.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def grid(results: list[dict[str, Any]]) -> list[str]:
    """Return the table of the grid's overheads as lines of Markdown."""
    (result,) = results
    lines = [
        f"Measured {result['machine']['date']} on {result['machine']['hardware']}; "
        f"{', '.join(f'{k} {v}' for k, v in result['machine']['versions'].items())}.", "",
        f"Command: `{result['command']}`", "", "| what | seconds | processor s |", "|---|---:|---:|",
    ]  # fmt: skip
    lines += [f"| {row['what']} | {row['wall']:.1f} | {row['cpu']:.1f} |" for row in result["rows"]]
    return lines


def tokens(results: list[dict[str, Any]]) -> list[str]:
    """Return the table of tokens a second on raw text as lines of Markdown."""
    (result,) = results
    sizes, names = result["sizes"], list(result["rows"][0]["loss"])
    others = [name for name in names if name != "needed"]
    lines = [
        f"Measured {result['machine']['date']} on {result['machine']['hardware']}, {sizes['threads']} thread(s), "
        f"{sizes['device']}; {', '.join(f'{k} {v}' for k, v in result['machine']['versions'].items())}; models "
        f"{sizes['teacher']}-{sizes['student']}x{sizes['width']}, vocabulary {sizes['vocabulary']:,}, sequences of "
        f"{sizes['length']}, {sizes['batch']} an update.", "", f"Command: `{result['command']}`", "",
        _row(["objective", *names, *[f"needed : {name}" for name in others], "largest spread"]),
        _row(["---", *["---:"] * (len(names) + len(others) + 1)]),
    ]  # fmt: skip
    for row in result["rows"]:
        speeds = row.get("tokens_per_s")
        if speeds is None:
            lines.append(_row([row["objective"], "another computation", *[""] * (len(names) + len(others))]))
            continue
        cells = [f"{speeds[name]:,.0f}" for name in names]
        cells += [f"{speeds['needed'] / speeds[name]:.2f} x" for name in others]
        lines.append(_row([row["objective"], *cells, f"{max(row['spread'].values()):.0%}"]))
    return lines


def _cells(out: Path) -> list[Path]:
    """Return the files of all cells that are measured, large models first."""
    return sorted((out / "cells").glob("*.json"), key=lambda path: [*path.name.split("-")[2:0:-1], path.name])


TABLES = {"speed": speed, "grid": grid, "tokens": tokens}
"""Names of tables -> who makes their lines of results."""
KEPT: dict[str, Callable[[Path], list[Path]]] = {
    "speed": _cells,
    "grid": lambda out: [path for path in [out / "grid.json"] if path.is_file()],
    "tokens": lambda out: [path for path in [out / "tokens.json"] if path.is_file()],
}
"""Names of tables -> the files of their results in a folder."""
