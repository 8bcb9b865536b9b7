"""The command line: compose a configuration, check it, run it. ``python -m kdexp --help``."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

CONFIG_PATH = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "conf")


def without_hydra(config: Any) -> Any:
    """Return a copy of a composed configuration without its ``hydra`` node."""
    from omegaconf import OmegaConf

    return OmegaConf.masked_copy(config, [k for k in config if k != "hydra"])


def complain(found: list[str]) -> None:
    """Print all problems in one message."""
    head = "One thing must change" if len(found) == 1 else f"{len(found)} things must change"
    print(f"{head} before this can run:\n" + "\n".join(f"  - {p}" for p in found), file=sys.stderr)


def resolvers() -> None:
    """Register the interpolations that conf/config.yaml uses."""
    from omegaconf import OmegaConf

    def named(function: str) -> Any:
        def resolver(*, _root_: Any) -> str:
            from kdexp import config, runs

            return str(getattr(runs, function)(config.resolve(without_hydra(_root_))))

        return resolver

    def per_task(key: str, default: Any, *, _parent_: Any, _root_: Any) -> Any:
        """Look a recipe's value up by the task's name."""
        own = (_parent_.get("per_task") or {}).get(_root_.task.name) or {}
        return own.get(key, default)

    OmegaConf.register_new_resolver("kdexp.per_task", per_task, replace=True)
    OmegaConf.register_new_resolver("kdexp.run_dir", named("folder"), replace=True)
    OmegaConf.register_new_resolver("kdexp.run_name", named("run_name"), replace=True)


def one(cfg: Any) -> dict[str, Any]:
    """Carry out one composed configuration; what Hydra calls."""
    from hydra.core.hydra_config import HydraConfig

    from kdexp import config, display, runs

    resolved = config.resolve(cfg)
    display.before(resolved)
    result = runs.execute(resolved, list(HydraConfig.get().overrides.task))
    display.after(result)
    return result


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code: 0 done, 1 something failed, 2 the request cannot work."""
    import hydra

    from kdexp import choices, errors, launchers

    arguments = list(sys.argv[1:] if argv is None else argv)
    environment()
    resolvers()
    launchers.register()
    launchers.take_names()
    choices.hide_bases()
    swept = launchers.experiment_sweep(arguments)
    refused = choices.refused(arguments, CONFIG_PATH) + ([swept] if swept else [])
    if refused:
        complain(refused)
        return 2
    # debug=NAME is laid over everything else, an experiment too, so it is composed last.
    debug = [a for a in arguments if a.startswith(("debug=", "+debug="))]
    sys.argv = ["kdexp", *(a for a in arguments if a not in debug), *("+" + a.lstrip("+") for a in debug)]
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="config")(one)()
    except BaseException as error:
        return errors.report(error, arguments, CONFIG_PATH)
    return 0


def environment() -> None:
    """Set what must be set before heavy libraries are imported; what the user has set stays."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # kdexp.errors turns errors into sentences
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


if __name__ == "__main__":
    sys.exit(main())
