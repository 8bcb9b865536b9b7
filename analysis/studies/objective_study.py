"""How to Distill your BERT, Table 1: all objectives from every k-th teacher layer."""

from __future__ import annotations

import sys

from analysis.studies import reproduce


def main(arguments: list[str] | None = None) -> int:
    """The command: ``python -m analysis.studies.objective_study [key=value ...]``."""
    return reproduce(
        "objective_study", __doc__ or "", claims=("howto", "distilling", "intermediate"), arguments=arguments
    )


if __name__ == "__main__":
    sys.exit(main())
