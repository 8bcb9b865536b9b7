"""``kdexp chosen STUDY``: two protocols over a grid of settings, side by side.

Papers print the best point of a fine-tuning grid, chosen on the very set that they report. Here, of each seed:

* *best of grid on validation*: the highest score on validation (that protocol);
* *chosen on held-out train, reported once*: the score on validation of the point with the highest score on held-out
  rows of train.

Both are averaged over seeds; the gap between them is what the first protocol adds.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import cli, records
from .tables import collected, write

if TYPE_CHECKING:
    import pandas as pd

    from .collect import Collected

PURPOSE = "Set best-of-grid on validation beside the point chosen on held-out train; writes tables/chosen.md and .csv."
ROW = ("objective", "init", "student", "task")
"""Labels that a line is made for; everything else that the grid varies is a point of it."""


def chosen(found: Collected) -> pd.DataFrame:
    """Return a line for each method and task, scores x100: both protocols' means over seeds, their gap, n, points.

    ``picked`` names what held-out rows chose, in the settings that differ between the points: the choice of most seeds,
    and of how many, where they do not agree.

    Raises:
        ValueError: runs without scores on held-out rows, or a grid of one point.
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
    lines = []
    for labels, cell in runs.groupby(list(ROW), sort=False):
        seeds = cell.groupby("seed")
        best = seeds["validation"].max()
        choices = cell.loc[seeds["heldout"].idxmax()]
        honest = choices.set_index("seed")["validation"]
        points = int(seeds.size().max())
        line = dict(zip(ROW, labels, strict=True)) | {"metric": str(cell["metric"].iloc[0]), "points": points}
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


def markdown(frame: pd.DataFrame, study: str) -> str:
    """Return the lines as a table for people."""
    head = [*ROW, "metric", "n", "points", "best of grid on validation", "chosen on held-out train", "gap", "picked"]
    rows = [
        [
            *(str(line[key]) for key in ROW),
            str(line["metric"]),
            str(line["n"]),
            str(line["points"]),
            f"{line['best_of_grid']:.1f}",
            f"{line['chosen']:.1f}" + (f" ± {line['chosen_std']:.1f}" if line["n"] > 1 else ""),
            f"{line['gap']:+.1f}",
            str(line["picked"]),
        ]
        for line in frame.to_dict("records")
    ]
    table = [head, ["---"] * len(head), *rows]
    return "\n".join(
        [
            f"# {study}: the best of a grid, and the point that held-out rows choose",
            "",
            *("| " + " | ".join(row) + " |" for row in table),
            "",
            "n seeds, each with its own choice among the points; mean (± sample std) over seeds, x100; picked: what "
            "held-out rows chose.",
        ]
    )


def run(options: dict[str, Any]) -> cli.Answer:
    """Choose, write."""
    from . import render

    found = collected(options)
    frame = chosen(found)
    text, folder = markdown(frame, found.study), found.folder / "tables"
    written = [write(folder / "chosen.md", text), write(folder / "chosen.csv", render.csv(frame))]
    return cli.Answer(text, {"study": found.study, "lines": frame.to_dict("records")}, written)


VERB = cli.verb(PURPOSE, cli.COMMON, run)


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out the verb."""
    return cli.main("chosen", VERB, arguments)


if __name__ == "__main__":
    sys.exit(main())
