"""How to Distill your BERT, Table 3: objectives by the teacher layers that a 3-layer student starts from."""

from __future__ import annotations

import sys

from analysis.studies import reproduce


def main(arguments: list[str] | None = None) -> int:
    """The command: ``python -m analysis.studies.init_ablation [key=value ...]``."""
    return reproduce(
        "init_ablation", __doc__ or "", claims=("howto", "distilling", "intermediate"), arguments=arguments
    )


if __name__ == "__main__":
    sys.exit(main())
