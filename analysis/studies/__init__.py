"""The studies whose tables, claims and paper are known: ``python -m analysis.studies.NAME`` makes them all at once.

One table, :data:`analysis.designs.STUDIES`; every entry is a command of its own. ``study=NAME_desk`` reads a smaller
form of the study, for which the same entry holds.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from .. import cli
from ..designs import STUDIES, Study


def reproduce(name: str, arguments: Sequence[str] | None = None) -> int:
    """The command of one study: print its scores, claims, what it was run for in words, and its paper's numbers."""
    from .. import tables

    known = STUDIES[name]
    keys = {
        **tables.KEYS,
        "study": replace(cli.STUDY, default=name),
        "layout": cli.Key(tables.KEYS["layout"].help, known.layout, tables.KEYS["layout"].values),
    }
    return cli.main(f"analysis.studies.{name}", known.purpose, keys, lambda given: _run(given, known), arguments)


def _run(options: dict[str, str], known: Study) -> None:
    """Scores, claims, the primary ones in words with all their intervals, paper and ours: one reading of the runs."""
    from .. import claims, results, tables
    from ..published import compare

    found = tables.run(options)
    folder = found.folder / "tables"
    verdicts = [one for one in claims.evaluate(found) if one.id.startswith((*known.claims, *known.primary))]
    text = claims.markdown(verdicts, found.study)
    print(text)
    print(*(results.paragraph(found, one) for one in verdicts if one.primary), "", sep="\n\n")
    tables.write(folder / "claims.md", text)
    lines, notes = compare.compare(found)
    if notes:
        text = compare.markdown(lines, notes, found.study)
        print(text)
        tables.write(folder / "published.md", text)


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
