"""Pea-KD: parameter sharing and PTP, equal parameters but not equal cost."""

from __future__ import annotations

import sys

from analysis.studies import reproduce


def main(arguments: list[str] | None = None) -> int:
    """The command: ``python -m analysis.studies.pea_kd [key=value ...]``."""
    return reproduce("pea_kd", __doc__ or "", layout="methods", claims=("pea",), arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
