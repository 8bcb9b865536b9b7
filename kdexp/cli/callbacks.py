"""Hydra callbacks: what happens between composition and a run."""

from __future__ import annotations

from typing import Any

from hydra.experimental.callback import Callback


class Check(Callback):
    """Refuses a single run that cannot work, before anything is loaded or written (grids check all their points)."""

    def on_run_start(self, config: Any, **ignored: Any) -> None:
        """Check the composed configuration; end the process with code 2 if there are problems.

        Also the place where ``plan=show`` and ``dry=true`` end, before a folder is made.
        """
        from kdexp.cli.main import complain, without_hydra
        from kdexp.config.resolve import problems, resolve

        resolved = resolve(without_hydra(config))
        found = problems(resolved)
        if found:
            complain(found)
            raise SystemExit(2)
        if resolved["plan"] == "show" or resolved["dry"]:
            from kdexp.cli import preview

            preview.plan(resolved)
            raise SystemExit(0)
