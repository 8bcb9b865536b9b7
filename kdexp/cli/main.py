"""The command line: compose a configuration, check it, run it. ``python -m kdexp --help``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from kdexp.cli import commands
from kdexp.common import redact

CONFIG_PATH = str(Path(__file__).resolve().parents[2] / "conf")


def resolvers() -> None:
    """Register the interpolations that conf/config.yaml uses."""
    from omegaconf import OmegaConf

    def per_task(key: str, default: Any, *, _parent_: Any, _root_: Any) -> Any:
        """Look a recipe's value up by the task's name."""
        own = (_parent_.get("per_task") or {}).get(_root_.task.name) or {}
        return own.get(key, default)

    def run_dir(*, _root_: Any) -> str:
        return str(identified(_root_).run_dir)

    def run_name(*, _root_: Any) -> str:
        return identified(_root_).name

    OmegaConf.register_new_resolver("kdexp.per_task", per_task, replace=True)
    OmegaConf.register_new_resolver("kdexp.run_dir", run_dir, replace=True)
    OmegaConf.register_new_resolver("kdexp.run_name", run_name, replace=True)


def identified(composed: Any) -> Any:
    """Return the spec of the run that Hydra is about to start: the one that was checked before, if there is one."""
    from kdexp.cli import callbacks
    from kdexp.run import spec

    return callbacks.checked or spec.make(composed)


def one(composed: Any) -> dict[str, Any]:
    """Carry out one composed configuration; what Hydra calls."""
    from kdexp.cli import preview
    from kdexp.run import execute

    run = identified(composed)
    preview.before(run)
    result = execute.execute(run)
    preview.after(result)
    return result


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code: 0 done, 1 something failed, 2 the request cannot work."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    environment()
    redact.clean_terminal()
    redact.learn(arguments)
    if commands.asked(arguments):
        return commands.main(arguments)
    import hydra

    from kdexp.cli import errors
    from kdexp.config import choices, loading
    from kdexp.sweep import plugins

    resolvers()
    plugins.register()
    plugins.take_names()
    choices.hide_bases()
    loading.install(CONFIG_PATH, plugins.SWEEPERS)
    swept = plugins.experiment_sweep(arguments)
    refused = choices.refused(arguments, CONFIG_PATH) + ([swept] if swept else [])
    refused += loading.refused_arguments(arguments)
    if refused:
        errors.complain(refused)
        return 2
    # debug=NAME is laid over everything else, an experiment too, so it is composed last.
    debug = [a for a in arguments if a.startswith(("debug=", "+debug="))]
    sys.argv = ["kdexp", *(a for a in arguments if a not in debug), *("+" + a.lstrip("+") for a in debug)]
    try:
        hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="config")(one)()
    except BaseException as error:
        return errors.report(error, arguments, CONFIG_PATH)
    return 0


def environment() -> None:
    """Set what must be set before heavy libraries are imported; what the user has set stays."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # kdexp.cli.errors turns errors into sentences
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
