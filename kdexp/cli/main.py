"""The command line: compose a configuration, check it, run it. ``python -m kdexp --help``."""

from __future__ import annotations

import atexit
import os
import platform
import sys
from importlib.metadata import version
from typing import Any

from kdexp import __version__
from kdexp.cli import commands, completion, words
from kdexp.cli.words import CONFIG_PATH
from kdexp.common import arguments as terminal
from kdexp.common import contributed, machine, redact


def resolvers() -> None:
    """Register the interpolations that conf/config.yaml uses."""
    from omegaconf import OmegaConf

    def per_task(key: str, default: Any, *, _parent_: Any, _root_: Any) -> Any:
        """Look a recipe's value up by the task's name."""
        own = (_parent_.get("per_task") or {}).get(_root_.task.name) or {}
        return own.get(key, default)

    def debug(key: str, default: Any, *, _root_: Any) -> Any:
        """Look up what debug=... says of a stage that a run has beside its own recipe."""
        return OmegaConf.select(_root_, f"debug.{key}", default=default)

    def run_dir(*, _root_: Any) -> str:
        return str(identified(_root_).run_dir)

    def run_name(*, _root_: Any) -> str:
        return identified(_root_).name

    OmegaConf.register_new_resolver("kdexp.per_task", per_task, replace=True)
    OmegaConf.register_new_resolver("kdexp.debug", debug, replace=True)
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
    if machine.launched() > 1:
        from kdexp.run import crew

        if os.environ["RANK"] != "0":
            return crew.follow()
        atexit.register(crew.dismiss)  # whatever ends this process, the others hear of it
    terminal.show_what_can_be_shown()
    # With --info Hydra's own log prints every line already.
    redact.clean_terminal(log=not any(argument.startswith(words.INFO) for argument in arguments))
    redact.learn(arguments)
    if commands.asked(arguments):
        return commands.main(arguments)
    flags, overrides = words.ordered(arguments)
    if "--version" in flags:
        print(f"kdexp {__version__} (Hydra {version('hydra-core')}, Python {platform.python_version()})")
        return 0
    if completion.asked(flags, overrides):
        try:
            if completion.suggest():
                return 0
        except ValueError as error:
            print(error, file=sys.stderr)
            return 2
    from kdexp.cli import errors, offer
    from kdexp.config import choices, loading
    from kdexp.sweep import plugins

    resolvers()
    plugins.register()
    plugins.take_names()
    choices.hide_bases()
    loading.install(CONFIG_PATH, plugins.SWEEPERS)
    offer.install(commands.purposes)
    swept = plugins.experiment_sweep(overrides)
    refused = choices.refused(overrides, CONFIG_PATH) + ([swept] if swept else []) + words.problems(flags, overrides)
    refused += loading.refused_arguments(flags) + contributed.problems()
    if refused:
        errors.complain(refused)
        return 2
    sys.argv = ["kdexp", *flags, *overrides]
    try:
        composed_and_run()
    except BaseException as error:
        return errors.report(error, [*flags, *overrides], CONFIG_PATH)
    return 0


def composed_and_run() -> None:
    """Let Hydra compose what ``sys.argv`` asks for, and carry it out.

    Hydra would print errors in its own words and end the process; here they are raised, those of composition and those
    of the run, which Hydra would announce with a line of its own.
    """
    import hydra
    from hydra._internal import utils

    raised: list[BaseException] = []

    def task(composed: Any) -> Any:
        try:
            return one(composed)
        except BaseException as error:
            raised.append(error)
            return None

    def plainly(func: Any) -> Any:
        return func()

    before, utils.run_and_report = utils.run_and_report, plainly
    try:
        hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="config")(task)()
    finally:
        utils.run_and_report = before
    if raised:
        raise raised[0]


def environment() -> None:
    """Set what must be set before heavy libraries are imported; what the user has set stays."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # it warns of what DistributedDataParallel is asked to do
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # it names each attempt; what comes of them all is said once
