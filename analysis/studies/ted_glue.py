"""TED: task-aware filters, layer-wise distillation and KD, each from raw and from fine-tuned students."""

from __future__ import annotations

import sys

from analysis.studies import reproduce


def main(arguments: list[str] | None = None) -> int:
    """The command: ``python -m analysis.studies.ted_glue [key=value ...]``."""
    return reproduce("ted_glue", __doc__ or "", layout="methods", claims=("ted", "distilling"), arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
