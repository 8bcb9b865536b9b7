"""One short script a study: ``python -m analysis.studies.NAME`` makes the study's tables from its finished runs.

Each says which shape its paper's table has, which claims belong to it, and takes the keys of ``analysis.tables`` to
change that;
``study=NAME_desk`` reads a smaller form of the study.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from analysis import cli, tables


def reproduce(
    study: str,
    purpose: str,
    *,
    layout: str = "grid",
    claims: tuple[str, ...] = (),
    arguments: Sequence[str] | None = None,
) -> int:
    """Print and write a study's scores, its claims (ids that begin with one of ``claims``), and the paper's numbers."""
    keys = {
        **tables.KEYS,
        "study": replace(cli.STUDY, default=study),
        "layout": cli.Key(tables.KEYS["layout"].help, layout, tables.KEYS["layout"].values),
    }
    return cli.main(f"analysis.studies.{study}", purpose, keys, lambda options: _run(options, claims), arguments)


def _run(options: dict[str, str], prefixes: tuple[str, ...]) -> None:
    """Scores, then claims, then paper and ours, all from one reading of the runs."""
    from analysis import claims
    from analysis.published import compare

    found = tables.run(options)
    folder = found.folder / "tables"
    verdicts = claims.evaluate(found, [claim for claim in claims.load() if claim["id"].startswith(prefixes)])
    text = claims.markdown(verdicts, found.study)
    print(text)
    tables.write(folder / "claims.md", text)
    lines, notes = compare.compare(found)
    if notes:
        text = compare.markdown(lines, notes, found.study)
        print(text)
        tables.write(folder / "published.md", text)
