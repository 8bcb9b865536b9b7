"""``kdexp compare STUDY a=... b=...``: two methods, three questions, and where compute helps most.

``a`` and ``b`` select runs as claims do: ``a=objective.name=kd,init=first``. New seeds are answered from the study's
scores; the other two questions need the predictions that runs kept (``analysis.predictions``).
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from . import cli, crossed, gate, predictions
from .budget import Option, options
from .collect import Collected
from .contrasts import Block, contrast
from .estimate import Estimate
from .evidence import Scores, gather
from .render import md

Array = np.ndarray
QUESTIONS = ("these examples, new seeds", "these runs, new examples", "new seeds and new examples")
TOLERANCE = 0.5  # points between a score as recorded and as computed from half-precision logits


@dataclass(frozen=True)
class Comparison:
    """A minus B on the tasks that both have.

    ``answers``: an estimate for each of :data:`QUESTIONS` that can be answered. ``components``, ``mcnemar`` (one seed):
    by task. ``missing``: one sentence where predictions are missing.
    """

    tasks: tuple[str, ...]
    answers: dict[str, Estimate]
    components: dict[str, crossed.Components] = field(default_factory=dict)
    mcnemar: dict[str, float] = field(default_factory=dict)
    options: tuple[Option, ...] = ()
    missing: str = ""
    notes: tuple[str, ...] = ()


def selection(words: str, name: str) -> dict[str, Any]:
    """``objective.name=kd,init=first|last`` -> what is selected; ``ValueError`` if it cannot be read so."""
    out: dict[str, Any] = {}
    for word in filter(None, words.split(",")):
        key, equals, value = word.partition("=")
        if not equals or not key or not value:
            raise ValueError(
                f"{name}={words!r} is not KEY=VALUE,KEY=VALUE, such as {name}=objective.name=kd,init=first"
            )
        out[key] = value.split("|") if "|" in value else value
    return out


def compare(
    collected: Collected,
    a: dict[str, Any],
    b: dict[str, Any],
    *,
    tasks: Sequence[str] = (),
    within: Sequence[str] = (),
    metric: str = "chosen",
) -> Comparison:
    """Compare two selections of a study's runs.

    Raises:
        ValueError: they have no runs in common tasks, or predictions do not fit the recorded scores.
    """
    claim = {
        "kind": "contrast",
        "a": a,
        "b": b,
        "within": list(within),
        "metric": metric,
        "tasks": list(tasks) or "all",
    }
    scores, signal = Scores(collected), gate.signals(collected)
    evidence = gather(scores, claim, {})
    blocks = evidence.parts[0]
    if not blocks:
        reasons = "; ".join(f"{task}: {why}" for task, why in evidence.dropped.items())
        raise ValueError(f"a and b cannot be compared: {reasons or evidence.absent}")
    notes = [f"Left out: {task} ({why})." for task, why in evidence.dropped.items()]
    notes += [f"Without signal: {task} ({why})." for task in blocks if (why := signal[task].why())]
    return replace(answer(scores, blocks, metric), notes=tuple(notes))


def answer(scores: Scores, blocks: Mapping[str, Block], metric: str = "chosen") -> Comparison:
    """Answer the three questions for one contrast of a study's cells, as :func:`analysis.evidence.gather` lays it out.

    Raises:
        ValueError: predictions do not fit the recorded scores.
    """
    collected, first = scores.collected, contrast(list(blocks.values()))
    answers = {QUESTIONS[0]: first}
    cells = {
        task: dict(zip(scores.of(metric)[task].index, block.weights, strict=True)) for task, block in blocks.items()
    }
    seconds = _seconds(collected, cells)
    try:
        by_example = {task: _differences(collected, task, weights, metric) for task, weights in cells.items()}
    except predictions.MissingPredictions as error:
        kept = options(first, {}, list(seconds.values()), first.n)
        return Comparison(tuple(blocks), answers, options=kept, missing=str(error))
    arrays = list(by_example.values())
    answers[QUESTIONS[1]] = crossed.new_examples(arrays)
    answers[QUESTIONS[2]] = crossed.new_seeds_and_examples(first, arrays)
    parts = {task: crossed.components(d) for task, d in by_example.items()}
    single = {
        task: _mcnemar(d) for task, d in by_example.items() if len(d) == 1 and set(np.unique(d)) <= {-100, 0, 100}
    }
    kept = options(first, parts, list(seconds.values()), first.n)
    return Comparison(tuple(blocks), answers, parts, single, kept)


def _runs(collected: Collected, task: str, weights: dict[str, float]) -> pd.DataFrame:
    """The runs of the cells that have a weight, on seeds that all of these cells have."""
    cells = [cell for cell, weight in weights.items() if weight]
    runs = collected.runs[(collected.runs["task"] == task) & collected.runs["settings_hash"].isin(cells)]
    seeds = runs.groupby("seed")["settings_hash"].nunique()
    return runs[runs["seed"].isin(seeds[seeds == len(cells)].index)]


def _differences(collected: Collected, task: str, weights: dict[str, float], metric: str) -> Array:
    """What each example contributes to the difference, (seeds, examples), from the predictions that the runs kept."""
    runs = _runs(collected, task, weights)
    name = str(runs["metric"].iloc[0]) if metric == "chosen" else metric
    sums = runs["predictions"] if "predictions" in runs else [""] * len(runs)
    kept = [
        predictions.read(collected.folder / one, sha256=sha256 or None)
        for one, sha256 in zip(runs["name"], sums, strict=True)
    ]
    rows = predictions.scores_by_example(kept, name)
    _check(collected, runs, rows, name)
    seeds = sorted(set(runs["seed"]))
    out = np.zeros((len(seeds), rows.shape[1]))
    share = runs.groupby(["seed", "settings_hash"])["run"].transform(
        "count"
    )  # two runs of one cell and seed: their mean
    for row, seed, cell, count in zip(rows, runs["seed"], runs["settings_hash"], share, strict=True):
        out[seeds.index(seed)] += weights[cell] / count * row
    return np.round(out, 6)


def _check(collected: Collected, runs: pd.DataFrame, rows: Array, metric: str) -> None:
    """``ValueError`` where predictions do not give the score that the run recorded."""
    scores = collected.scores.query("who == 'student' and split == 'validation' and metric == @metric")
    recorded = scores.set_index("run")["value"] * 100
    for name, run, row in zip(runs["name"], runs["run"], rows, strict=True):
        if abs(row.mean() - recorded[run]) > TOLERANCE:
            raise ValueError(
                f"{name}: its predictions give {metric} {row.mean():.2f}, its result says {recorded[run]:.2f}: they "
                "are not of one run. Run the study again to write them anew"
            )


def _mcnemar(d: Array) -> float:
    return crossed.mcnemar(d[0] > 0, d[0] < 0)


def _seconds(collected: Collected, cells: dict[str, dict[str, float]]) -> dict[str, float]:
    """Mean seconds that one more seed of the comparison costs, by task."""
    out = {}
    for task, weights in cells.items():
        runs = _runs(collected, task, weights)
        out[task] = float(runs.groupby("settings_hash")["seconds"].mean().sum())
    return out


def _number(value: float, sign: str = "+") -> str:
    return "–" if math.isnan(value) else f"{value:{sign}.2f}"


def markdown(result: Comparison, study: str, a: str, b: str) -> str:
    """The comparison as text: answers, where the variance lies, and what the next hour would buy."""
    first = result.answers[QUESTIONS[0]]
    lines = [
        f"### {md(study)}: {md(a)} against {md(b)}",
        "",
        f"Effect {first.value:+.2f} points, averaged over {md(', '.join(result.tasks))}; {first.n} seeds.",
        "",
        "| question | 95 % interval | p |",
        "| --- | --- | ---: |",
    ]
    for question in QUESTIONS:
        one = result.answers.get(question)
        interval = "no answer" if one is None or math.isnan(one.low) else f"[{one.low:+.2f}, {one.high:+.2f}]"
        lines.append(f"| {question} | {interval} | {'–' if one is None or math.isnan(one.p) else f'{one.p:.3g}'} |")
    if result.components:
        lines += ["", "| task | examples | seed | example | rest |", "| --- | ---: | ---: | ---: | ---: |"]
        for task, part in result.components.items():
            stds = (_number(math.sqrt(v) if v == v else v, "") for v in (part.seed, part.example, part.rest))
            lines.append(f"| {md(task)} | {part.examples} | {' | '.join(stds)} |")
    if result.options:
        lines += ["", "| the next hour on | buys | half-width now | then |", "| --- | --- | ---: | ---: |"]
        lines += [
            f"| {md(one.what)} | {one.buys} | {_number(one.now, '')} | {_number(one.then, '')} |"
            for one in result.options
        ]
    return "\n".join(lines) + "\n\n" + "\n".join(f"- {note}" for note in _notes(result)) + "\n"


def _notes(result: Comparison) -> list[str]:
    """What a reader must know; the best use of an hour by name."""
    best = min(result.options, key=lambda one: one.then, default=None)
    out = ["New seeds: paired by seed, the error pooled over the study's cells."]
    out += ["New examples: paired on examples. Both: half-widths of seeds and of examples added in squares."]
    if result.components:
        out.append("Components: standard deviations of one example's difference for one seed, in points.")
    out += [f"McNemar's exact test on {task} (one seed): p = {p:.3g}." for task, p in result.mcnemar.items()]
    if best is not None and best.then < best.now:
        out.append(f"The next hour buys most on {best.what}: {best.buys}.")
    return [
        *out,
        *([result.missing] if result.missing else []),
        *result.notes,
    ]


PURPOSE = "Compare two selections of a study's runs; writes <root>/<study>/tables/compare/<a>_<b>.md."
KEYS = {
    **cli.COMMON,
    "a": cli.Key("the one: KEY=VALUE,KEY=VALUE by labels or settings, as objective.name=kd,init=first; | is or"),
    "b": cli.Key("the other"),
    "within": cli.Key("compare only runs that agree in these labels or settings: init,student", ""),
    "tasks": cli.Key("names of tasks; empty: all that both have", ""),
    "metric": cli.Key("one metric for all tasks; chosen: each task's own", "chosen"),
}


def run(options_: dict[str, Any]) -> cli.Answer:
    """Collect, compare, write."""
    from . import tables

    a, b = (selection(options_[name], name) for name in "ab")
    tasks, within = (list(filter(None, options_[name].split(","))) for name in ("tasks", "within"))
    collected = tables.collected(options_)
    result = compare(collected, a, b, tasks=tasks, within=within, metric=options_["metric"])
    text = markdown(result, collected.study, options_["a"], options_["b"])
    stem = "_".join(re.sub(r"[^A-Za-z0-9.]+", "-", options_[name]) for name in "ab")
    data = {"study": collected.study, "a": options_["a"], "b": options_["b"], **asdict(result)}
    written = [tables.write(collected.folder / "tables" / "compare" / f"{stem}.md", text)]
    return cli.Answer(text, data, written)


VERB = cli.verb(PURPOSE, KEYS, run)


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out the verb."""
    return cli.main("compare", VERB, arguments)


if __name__ == "__main__":
    sys.exit(main())
