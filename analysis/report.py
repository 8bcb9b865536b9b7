"""``kdexp report STUDY``: one self-contained HTML page about a study, for a browser, a phone and a
printer."""

from __future__ import annotations

import io
import json
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from jinja2 import Environment
from matplotlib.figure import Figure

from kdexp.common.redact import one_line

from . import claims, cli, curves, figures, opening, pictures, records, render, search, specimens
from .collect import Collected
from .grid import Grid, build
from .published.compare import compare

PURPOSE = (
    "Write <root>/<study>/report.html: scores, figures, claims, paper and ours, cost, environment, configuration, runs."
)
KEYS = {
    **cli.COMMON,
    "ui": cli.Key("address of MLflow's pages, for links that whoever gets the report can open; empty: no links", ""),
    "storage": cli.Key("database of the study's search; empty: the one that the study's folder names", ""),
}
CAPTIONS = {
    "heat": "Start (rows) by objective (columns); each panel has its own scale. Bold and ≈ as in the table.",
    "dots": "The effect of the start: averages with 95 % intervals over seeds.",
    "ranks": "Mean ranks over tasks; rows in the shaded zone cannot be told from the best by Nemenyi's test.",
    "pareto": "Score against {}; the line joins what nothing else beats in both.",
    "learning": "The chosen metric on the split that selects the epoch: mean over seeds, band from lowest to highest.",
    "matching": "Losses on intermediate layers while training, logarithmic.",
}
LISTED = 500  # runs listed by name; more would make the page slow on a phone


def inline(figure: Figure, number: int) -> str:
    """A figure as an SVG element whose ids cannot collide with those of another figure on the page.

    It has no ground of its own, and what is black takes the page's colour, so that it can be read in the dark too.
    """
    for axis in figure.axes:
        axis.patch.set_visible(False)
    for legend in [*figure.legends, *filter(None, (axis.get_legend() for axis in figure.axes))]:
        legend.get_frame().set_visible(False)
    figure.patch.set_visible(False)
    buffer = io.StringIO()
    with matplotlib.rc_context(figures.SVG):
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace("#000000", "currentColor")
    text = re.sub(r'id="([^"]+)"', rf'id="f{number}-\1"', text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#f{number}-\1"', text)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#f{number}-\1)", text)


def _figures(found: Collected, grid: Grid) -> tuple[list[dict[str, str]], list[str]]:
    """All figures that say something, with captions; and why others are left out."""
    history = curves.histories(found)
    sized = build(found, layout="methods")
    speeds = dict.fromkeys(n for row in sized.rows for n in row.extras if "median" in n and "faster" not in n)
    silent = [figures.one_start(grid), figures.silent_ranks(grid)]
    costs = {cost: figures.pareto(sized, cost) for cost in ("size (MB)", *speeds)}
    learning = curves.learning_curves(found, history)
    silent += [] if any(costs.values()) else ["Score against size: all students are of one size."]
    silent += [] if learning else ["Learning curves: no run was evaluated twice."]
    drawn: list[tuple[Figure | None, str]] = [
        (figures.heat_map(grid), CAPTIONS["heat"]),
        (None if silent[0] else figures.dots(grid), CAPTIONS["dots"]),
        (None if silent[1] else figures.critical_difference(grid), CAPTIONS["ranks"]),
        *((figure, CAPTIONS["pareto"].format(cost)) for cost, figure in costs.items()),
        (learning, CAPTIONS["learning"]),
        (curves.matching_losses(found, history), CAPTIONS["matching"]),
    ]
    shown = [
        {"svg": inline(figure, number), "caption": caption}
        for number, (figure, caption) in enumerate(drawn)
        if figure is not None
    ]
    return shown, [why for why in silent if why]


def _cost(found: Collected) -> dict[str, Any]:
    """Means a objective."""
    columns = {
        "seconds": ("seconds", 1),
        "of it training": ("train_seconds", 1),
        "steps": ("steps", 1),
        "examples/s": ("examples_per_s", 1),
        "peak memory (MB)": ("peak_memory_mb", 1),
        "parameters (M)": ("parameters", 1e6),
        "size (MB)": ("size_bytes", 1e6),
    }
    rows = [
        [objective, len(group), *(float(group[column].mean()) / unit for column, unit in columns.values())]
        for objective, group in found.runs.groupby("objective", sort=False)
    ]
    rows.append(["all runs, summed seconds", len(found.runs), float(found.runs["seconds"].sum()), *[math.nan] * 6])
    return {"head": ["objective", "runs", *columns], "rows": rows}


def _environment(runs: pd.DataFrame) -> list[tuple[str, str]]:
    """Distinct values of everything about the machine."""
    out = [(name, ", ".join(sorted(set(runs[name].astype(str)) - {""}))) for name in ("hardware", "device", "dtype")]
    versions: dict[str, set[str]] = {}
    for text in runs["versions"].drop_duplicates():
        for name, value in json.loads(text).items():
            versions.setdefault(name, set()).add(str(value))
    out += [(name, ", ".join(sorted(values))) for name, values in sorted(versions.items())]
    out.append(("finished", f"{runs['finished'].min()} to {runs['finished'].max()}"))
    out.append(
        ("data", "; ".join(f"{task} {value[:12]}" for task, value in runs.groupby("task")["data_hash"].first().items()))
    )
    return out


def _configuration(runs: pd.DataFrame) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(settings that differ, settings that all share), as words."""
    texts = list(runs["settings"].drop_duplicates())
    varied = records.differing(texts, seeds=True)
    flat = records.flatten(json.loads(texts[0]))
    words = {
        key: ", ".join(json.dumps(v) for v in values[:12]) + (", ..." if len(values) > 12 else "")
        for key, values in varied.items()
    }
    return list(words.items()), [(key, json.dumps(value)) for key, value in flat.items() if key not in varied]


def _runs(found: Collected, ui: str) -> list[dict[str, Any]]:
    """The run list, with links where MLflow's ids are known."""
    scores = found.scores[(found.scores["who"] == "student") & (found.scores["split"] == "validation")]
    chosen = found.runs[["run", "metric"]].merge(scores, on=["run", "metric"], how="left").set_index("run")["value"]
    return [
        {
            "name": run.name,
            "score": 100 * float(chosen.get(run.run, math.nan)),
            "seconds": run.seconds,
            "epoch": "" if math.isnan(run.best_epoch) else int(run.best_epoch),
            "link": f"{ui}/#/experiments/{run.mlflow_experiment}/runs/{run.mlflow_run}"
            if ui and run.mlflow_run
            else "",
        }
        for run in found.runs.head(LISTED).itertuples(index=False)
    ]


def _plain(value: Any) -> Any:
    """A number for people: a dash where there is none, no decimals from a thousand on."""
    if not isinstance(value, float):
        return value
    return "–" if math.isnan(value) else (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}")


def _shown(value: Any) -> Any:
    """What a place of the page shows: texts without control characters, before they are escaped."""
    return one_line(value) if type(value) is str else value


def _interval(one: Any) -> str:
    return getattr(one, "why", "") or "–" if math.isnan(one.low) else f"[{one.low:+.2f}, {one.high:+.2f}]"


def page(found: Collected, ui: str = "", storage: str = "") -> str:
    """The whole page."""
    grid = build(found)
    shown_figures, silent = _figures(found, grid)
    tried = search.section(found.folder, inline, storage)
    others = sorted(set(found.scores.loc[found.scores["split"] == "validation", "metric"]))
    verdicts = claims.evaluate(found)
    lines, notes = compare(found)
    shown = specimens.section(found)
    varied, shared = _configuration(found.runs)
    seen = pictures.section(found)
    sections = [
        ("scores", "Scores"),
        ("figures", "Figures"),
        *([("search", "Search")] if tried else []),
        *([("pictures", "Images")] if seen else []),
        *([("examples", "Examples")] if shown else []),
        ("claims", "Claims"),
        *([("published", "Paper and ours")] if notes else []),
        ("cost", "Cost"),
        ("environment", "Environment"),
        ("configuration", "Configuration"),
        ("runs", "Runs"),
    ]
    environment = Environment(autoescape=True, trim_blocks=True, finalize=_shown)
    environment.filters.update(
        signed=lambda v: "–" if math.isnan(v) else f"{v:+.2f}",
        small=lambda v: "–" if math.isnan(v) else f"{v:.2g}",
        plain=_plain,
        interval=_interval,
    )
    template = environment.from_string(Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8"))
    return template.render(
        study=found.study,
        source=found.source,
        question=opening.question(found),
        verdict=opening.paragraph(found, grid, verdicts),
        sections=sections,
        missing=found.missing,
        scores={"table": render.html_table(grid), "notes": grid.notes},
        figures=shown_figures,
        silent=silent,
        ui=ui,
        search=tried,
        pictures=seen,
        examples=shown,
        others=[(name, render.html_table(build(found, metric=name))) for name in others] if len(others) > 1 else [],
        claims=sorted((one for one in verdicts if one.verdict != "not run"), key=lambda one: not one.primary),
        claim_notes=claims.notes(verdicts),
        published={"lines": [line for line in lines if line.n], "notes": notes} if notes else None,
        cost=_cost(found),
        environment=_environment(found.runs),
        varied=varied,
        shared=shared,
        runs=_runs(found, ui.rstrip("/")),
        hidden=max(0, len(found.runs) - LISTED),
    )


def run(options: dict[str, Any]) -> cli.Answer:
    """Collect, write."""
    from .tables import collected, write

    if options["ui"] and not options["ui"].startswith(("http://", "https://")):
        raise ValueError(f"ui={options['ui']!r} is not an address; it begins with http:// or https://")
    found = collected(options)
    written = [write(found.folder / "report.html", page(found, options["ui"], options["storage"]))]
    return cli.Answer("", {"study": found.study}, written)


VERB = cli.verb(PURPOSE, KEYS, run)


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out the verb."""
    return cli.main("report", VERB, arguments)


if __name__ == "__main__":
    sys.exit(main())
