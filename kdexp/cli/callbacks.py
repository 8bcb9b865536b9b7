"""Hydra callbacks: what happens between composition and a run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import OmegaConf

from kdexp.cli import words
from kdexp.cli.errors import report
from kdexp.common.problems import ConfigError
from kdexp.config.identity import ROOT

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
            if checked.config.budget is not None:
                problems.append(f"budget={checked.config.budget} has no effect: a single run has none, a race has.")
            if problems:
                raise ConfigError(problems)
            if checked.config.plan == "show" or checked.config.dry:
                preview.stages(checked)
                raise SystemExit(0)
        except Exception as error:  # Hydra would log it as a warning and run all the same
            report(error)
            raise SystemExit(2) from error

    def on_multirun_start(self, config: Any, **ignored: Any) -> None:
        """Refuse a grid under ``torchrun``, which starts the processes of one run, and what cannot be delivered."""
        from kdexp.common import machine

        asked = config.hydra.sweeper.get("deliver")
        problems = _undeliverable(asked.get("forms")) if asked else []
        if problems:
            report(ConfigError(problems))
            raise SystemExit(2)
        if machine.launched() > 1:
            count = f"torchrun has started {machine.launched()} processes"
            report(ConfigError([f"{count}, which are those of one run; a grid needs none: use runtime.devices=N."]))
            raise SystemExit(2)

    def on_multirun_end(self, config: Any, **ignored: Any) -> None:
        """Deliver what a race has chosen; end the process with code 1 if that fails, or if a run had failed."""
        asked = config.hydra.sweeper.get("deliver")
        if not asked or config.dry or config.plan == "show":
            return
        from kdexp.delivery import compress
        from kdexp.sweep import race

        study = Path(ROOT) / str(config.study)
        decided, cache = race.read(study), Path(config.runtime.store).expanduser().absolute() / "cache"
        try:
            told, whole = compress.deliver(study, decided["chosen"], config.data.root, cache, **asked, say=_say)
        except (ValueError, RuntimeError, OSError) as error:
            report(ValueError(" ".join(error.problems)) if isinstance(error, ConfigError) else error)
            raise SystemExit(1) from error
        print("\n".join([*told, "", f"{study / compress.FOLDER}: table.md, pareto.png, a folder a size with its card"]))
        if decided["failed"] or not whole:
            raise SystemExit(1)


def _undeliverable(asked: Any) -> list[str]:
    """Say which forms do not exist, or need what is not installed."""
    from kdexp.delivery.form import form
    from kdexp.delivery.forms import names

    key, known = "hydra.sweeper.deliver.forms", names()
    if not OmegaConf.is_list(asked) or not all(isinstance(name, str) for name in asked):
        return [f"{key}={asked}: a list of forms is wanted, such as [onnx, onnx_int8], or [] for none."]
    wrong = [f"{key}: there is no form {name!r}; there are {', '.join(known)}." for name in asked if name not in known]
    return wrong + [f"{key}: {n} {lacking}." for n in asked if n in known and (lacking := form(n).missing())]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
