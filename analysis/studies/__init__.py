"""The studies whose tables, claims and paper are known: ``kdexp reproduce NAME`` makes them all at once.

One table, :data:`analysis.designs.STUDIES`; every entry is a command of its own too, ``python -m
analysis.studies.NAME``. ``NAME_desk`` is a smaller form of the study, for which the same entry holds.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from .. import cli, tables
from ..designs import STUDIES, Study

KEYS = {
    **tables.KEYS,
    "layout": cli.Key(tables.KEYS["layout"].help + "; empty: the study's own", "", ("", *tables.KEYS["layout"].values)),
}
PURPOSE = "All that a known study was run for at once: its scores, claims in words, its paper's numbers."


def run(options: dict[str, Any]) -> cli.Answer:
    """Scores, claims, the primary ones in words with all their intervals, paper and ours: one reading of the runs.

    Raises:
        ValueError: the study is none that is known.
    """
    known = STUDIES.get(options["study"]) or STUDIES.get(options["study"].removesuffix("_desk"))
    if known is None:
        others = f"{', '.join(STUDIES)} (or their small forms, NAME_desk)"
        raise ValueError(f"study={options['study']!r} is none whose claims were stated before; there are: {others}")
    return _everything(options, known)


def _everything(options: dict[str, Any], known: Study) -> cli.Answer:
    from .. import claims, results
    from ..published import compare

    found, scores = tables.scores({**options, "layout": options["layout"] or known.layout})
    folder = found.folder / "tables"
    verdicts = [one for one in claims.evaluate(found) if one.id.startswith((*known.claims, *known.primary))]
    words = [results.paragraph(found, one) for one in verdicts if one.primary]
    pages = [scores.text, claims.markdown(verdicts, found.study), "\n\n".join([*words, ""])]
    written = [*scores.written, tables.write(folder / "claims.md", pages[1])]
    lines, notes = compare.compare(found)
    if notes:
        pages.append(compare.markdown(lines, notes, found.study))
        written.append(tables.write(folder / "published.md", pages[-1]))
    data = {
        **scores.data,
        "claims": [vars(one) for one in verdicts],
        "words": words,
        "published": [vars(line) for line in lines],
    }
    return cli.Answer("\n".join(pages), data, written)


VERB = cli.verb(PURPOSE, KEYS, run)


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out the verb."""
    return cli.main("reproduce", VERB, arguments)


def reproduce(name: str, arguments: Sequence[str] | None = None) -> int:
    """Carry the verb out as it is for one study, whose name need not be given."""
    known = STUDIES[name]
    keys = {**KEYS, "study": replace(KEYS["study"], default=name)}
    return cli.main(
        f"reproduce {name}", cli.verb(known.purpose, keys, lambda options: _everything(options, known)), arguments
    )


class _Commands(MetaPathFinder, InspectLoader):
    """Makes ``analysis.studies.NAME`` a module for every entry of the table, so that ``python -m`` finds it."""

    SOURCE = (
        "import sys\nfrom {package} import reproduce\n\n\n"
        "def main(arguments=None):\n    return reproduce({name!r}, arguments)\n\n\n"
        "if __name__ == '__main__':\n    sys.exit(main())\n"
    )

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.rpartition(".")
        return ModuleSpec(fullname, self) if package == __name__ and name in STUDIES else None

    def get_source(self, fullname: str) -> str:
        return self.SOURCE.format(package=__name__, name=fullname.rpartition(".")[2])


sys.meta_path.append(_Commands())
