"""The quickstart: which start and which objective suit a small student of MiniLM."""

from __future__ import annotations

import sys

from analysis.studies import reproduce


def main(arguments: list[str] | None = None) -> int:
    """The command: ``python -m analysis.studies.quickstart [key=value ...]``."""
    return reproduce("quickstart", __doc__ or "", claims=("howto", "distilling", "intermediate"), arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
