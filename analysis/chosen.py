"""``kdexp chosen STUDY``: two protocols over a grid of settings, side by side.

Papers print the best point of a fine-tuning grid, chosen on the very set that they report. Here, of each seed:

* *best of grid on validation*: the highest score on validation (that protocol);
* *chosen on held-out train, reported once*: the score on validation of the point with the highest score on held-out
  rows of train.

Both are averaged over seeds; the gap between them is what the first protocol adds. Between them stands what a smaller
search would have printed: the expected best of k points on validation, with the same k for all lines, so that methods
of more points are not ahead for that alone.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import cli, records
from .selection import expected_maximum
from .tables import collected, write

if TYPE_CHECKING:
    import pandas as pd

    from .collect import Collected

PURPOSE = "Set best-of-grid on validation beside the point chosen on held-out train; writes tables/chosen.md and .csv."
ROW = ("objective", "init", "student", "task")
"""Labels that a line is made for; everything else that the grid varies is a point of it."""


def chosen(found: Collected, best_of: int = 0) -> pd.DataFrame:
    """Return a line for each method and task, scores x100: both protocols' means over seeds, their gap, n, points.

    ``picked`` names what held-out rows chose, in the settings that differ between the points: the choice of most seeds,
    and of how many, where they do not agree. ``mean``: of all points; ``expected_best``: of ``k`` of them.

    Args:
        best_of: k; 0 = as many as every seed of every line has.

    Raises:
        ValueError: runs without scores on held-out rows, a grid of one point, or more points asked for than there are.
    """
    import pandas as pd

    scores = found.scores
    scores = scores[(scores["who"] == "student") & scores["split"].isin(["heldout", "validation"])]
    wide = scores.pivot_table(index=["run", "metric"], columns="split", values="value").reset_index()
    runs = found.runs.merge(wide, on=["run", "metric"], how="left")
    if "heldout" not in runs or runs["heldout"].isna().any():
        raise ValueError(
            f"study={found.study}: there are runs without scores on held-out rows of train; data.heldout=0.1 gives them"
        )
    fewest = int(runs.groupby([*ROW, "seed"]).size().min())
    if best_of > fewest:
        raise ValueError(f"best_of={best_of}: of some line and seed there are {fewest} points; ask for at most so many")
    k = best_of or fewest
    lines = []
    for labels, cell in runs.groupby(list(ROW), sort=False):
        seeds = cell.groupby("seed")
        best = seeds["validation"].max()
        choices = cell.loc[seeds["heldout"].idxmax()]
        honest = choices.set_index("seed")["validation"]
        points = int(seeds.size().max())
        line = dict(zip(ROW, labels, strict=True)) | {"metric": str(cell["metric"].iloc[0]), "points": points}
        expected = seeds["validation"].apply(lambda values: expected_maximum(list(values), k))
        line |= {"mean": 100 * cell["validation"].mean(), "k": k, "expected_best": 100 * expected.mean()}
        line |= {"n": len(best), "best_of_grid": 100 * best.mean(), "chosen": 100 * honest.mean()}
        line |= {"chosen_std": 100 * honest.std(), "gap": 100 * (best.mean() - honest.mean())}
        line |= {"picked": _picked(list(cell["settings"]), list(choices["settings"]))}
        lines.append(line)
    frame = pd.DataFrame(lines)
    if (frame["points"] < 2).all():
        raise ValueError(
            f"study={found.study}: one point of a grid a seed, so nothing is chosen; use python -m kdexp tables"
        )
    return frame


def _picked(points: list[str], choices: list[str]) -> str:
    """Say which point the seeds chose."""
    keys = records.differing(points)
    words = [", ".join(f"{key}={records.settings_of(text).get(key)}" for key in keys) for text in choices]
    most, times = Counter(words).most_common(1)[0]
    return most + (f" ({times} of {len(words)} seeds)" if times < len(words) else "")


def table(frame: pd.DataFrame) -> str:
    """Return the lines as a table for people, and below it what its columns are."""
    expected = f"expected best of {frame['k'].iloc[0]}"
    head = [*ROW, "metric", "n", "points", "mean of points", expected, "best of grid on validation"]
    head += ["chosen on held-out train", "gap", "picked"]
    rows = [
        [
            *(str(line[key]) for key in ROW),
            str(line["metric"]),
            str(line["n"]),
            str(line["points"]),
            f"{line['mean']:.1f}",
            f"{line['expected_best']:.1f}",
            f"{line['best_of_grid']:.1f}",
            f"{line['chosen']:.1f}" + (f" ± {line['chosen_std']:.1f}" if line["n"] > 1 else ""),
            f"{line['gap']:+.1f}",
            str(line["picked"]),
        ]
        for line in frame.to_dict("records")
    ]
    return "\n".join(
        [
            *("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]),
            "",
            "n seeds, each with its own choice among the points; mean (± sample std) over seeds, x100; expected best: "
            "what a search of so many of the points would have printed on validation; gap: best of grid - chosen; "
            "picked: what held-out rows chose.",
        ]
    )


def markdown(frame: pd.DataFrame, study: str) -> str:
    """Return the table with a title."""
    return f"# {study}: the best of a grid, and the point that held-out rows choose\n\n{table(frame)}"


def run(options: dict[str, Any]) -> cli.Answer:
    """Choose, write."""
    from . import render

    found = collected(options)
    frame = chosen(found, options["best_of"])
    text, folder = markdown(frame, found.study), found.folder / "tables"
    written = [write(folder / "chosen.md", text), write(folder / "chosen.csv", render.csv(frame))]
    return cli.Answer(text, {"study": found.study, "lines": frame.to_dict("records")}, written)


def _points(text: str) -> int:
    if text != "auto" and not (text.isascii() and text.isdigit() and int(text)):
        raise ValueError("is neither a number of points nor auto")
    return 0 if text == "auto" else int(text)


KEYS = {
    **cli.COMMON,
    "best_of": cli.Key("k of the expected best of k points; auto: as many as every line has", "auto", kind=_points),
}
VERB = cli.verb(PURPOSE, KEYS, run)


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out the verb."""
    return cli.main("chosen", VERB, arguments)


if __name__ == "__main__":
    sys.exit(main())
