"""``python -m bench [grid | tokens | report] ...``: see ``--help`` of each."""

from __future__ import annotations

import sys

from bench import grid, report, speed, tokens

VERBS = {"grid": grid.main, "tokens": tokens.main, "report": report.main}


def main(arguments: list[str] | None = None) -> int:
    """Hand the words to a verb; without one, the speed of distillation is measured."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    verb = VERBS.get(words[0]) if words else None
    try:
        return speed.main(words) if verb is None else verb(words[1:])
    except KeyboardInterrupt:
        print("stopped; cells that are measured are kept, and the same command measures the rest", file=sys.stderr)
        return 130
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
