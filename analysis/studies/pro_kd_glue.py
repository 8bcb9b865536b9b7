"""Pro-KD (our reading): following the teacher's checkpoints, with its controls."""

from __future__ import annotations

import sys

from analysis.studies import reproduce


def main(arguments: list[str] | None = None) -> int:
    """The command: ``python -m analysis.studies.pro_kd_glue [key=value ...]``."""
    return reproduce(
        "pro_kd_glue",
        __doc__ or "",
        layout="methods",
        claims=("pro_kd", "continuation", "distilling"),
        arguments=arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
