"""PKD: Skip and Last against vanilla KD and fine-tuning, with sizes and cost."""

from __future__ import annotations

import sys

from analysis.studies import reproduce


def main(arguments: list[str] | None = None) -> int:
    """The command: ``python -m analysis.studies.pkd_glue [key=value ...]``."""
    return reproduce("pkd_glue", __doc__ or "", layout="methods", claims=("pkd", "distilling"), arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
