"""Hydra callbacks: what happens between composition and a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback

from kdexp.cli import words
from kdexp.cli.errors import report
from kdexp.common.problems import ConfigError

if TYPE_CHECKING:
    from kdexp.run.spec import RunSpec

checked: RunSpec | None = None
"""The single run of this process, once it has been checked: what is carried out is what was looked at."""


class Check(Callback):
    """Refuses a single run that cannot work, before anything is loaded or written (grids check all their points)."""

    def on_run_start(self, config: Any, **ignored: Any) -> None:
        """Check the composed configuration; end the process with code 2 if there are problems.

        Also the place where ``plan=show`` and ``dry=true`` end, before a folder is made.
        """
        # Hydra imports this file for a grid's parent and for --help too, which need no torch.
        from kdexp.check import probes
        from kdexp.cli import preview
        from kdexp.common import machine
        from kdexp.run import spec

        global checked
        try:
            checked = spec.make(config, list(config.hydra.overrides.task))
            runtime = checked.config.runtime
            problems = words.of_grids(list(config.hydra.overrides.hydra))
            problems += [*machine.problems(runtime.device, runtime.devices), *probes.problems([checked.config])]
            if checked.config.scale != "full":
                problems.append(f"scale={checked.config.scale} has no effect: a single run has no forms, a study has.")
            if problems:
                raise ConfigError(problems)
            if checked.config.plan == "show" or checked.config.dry:
                preview.stages(checked)
                raise SystemExit(0)
        except Exception as error:  # Hydra would log it as a warning and run all the same
            report(error)
            raise SystemExit(2) from error

    def on_multirun_start(self, config: Any, **ignored: Any) -> None:
        """Refuse a grid under ``torchrun``, which starts the processes of one run."""
        from kdexp.common import machine

        if machine.launched() > 1:
            count = f"torchrun has started {machine.launched()} processes"
            report(ConfigError([f"{count}, which are those of one run; a grid needs none: use runtime.devices=N."]))
            raise SystemExit(2)
