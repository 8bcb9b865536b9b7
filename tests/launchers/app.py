"""The command line of kdexp with runs that sleep and a small configuration; started by the tests as a process."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
REAL = HERE.parents[1] / "conf"


def problems(config: dict) -> list[str]:
    """Refuse one combination, and seed 13."""
    found = []
    if config["init"]["name"] == "last" and config["student"]["name"] == "tiny":
        found.append("init=last does not fit student=tiny: choose another init.")
    if config["seed"] == 13:
        found.append("seed=13 brings bad luck: choose another.")
    return found


def stages(config: dict, known: Any = None) -> list[Any]:
    """One teacher a task."""
    from kdexp.store.stage import Stage

    teacher = Stage("teacher", "", {"task": config["task"]["name"]}, shared=True)
    return [teacher, Stage("distill.prediction", "", config, {"teacher": teacher})]


def main() -> int:
    """Run the command line."""
    import hydra

    from kdexp.cli import errors
    from kdexp.config import resolve as configs
    from kdexp.methods import base as plan
    from kdexp.sweep import plugins

    os.environ["HYDRA_FULL_ERROR"] = "1"
    configs.problems = problems
    plan.stages = stages
    plugins.register()
    from kdexp.launch.local import Local

    if "STUB_PRELOAD" not in os.environ:
        Local.preload = ()
    sys.argv += ["--config-dir", str(REAL)]
    try:
        hydra.main(version_base="1.3", config_path=str(HERE / "conf"), config_name="config")(lambda cfg: None)()
    except BaseException as error:
        return errors.report(error, sys.argv[1:], str(HERE / "conf"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
