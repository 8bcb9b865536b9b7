"""Results whose labels, science, identity and name are those that the program itself writes; scores are planted."""

from __future__ import annotations

import copy
from functools import lru_cache
from pathlib import Path
from typing import Any

from tests.analysis.synthetic import make_result


@lru_cache(maxsize=256)
def _configuration(overrides: tuple[str, ...]) -> dict[str, Any]:
    """A configuration composed and resolved as the command line does it."""
    from hydra import compose, initialize_config_dir

    from kdexp.cli import main
    from kdexp.config.resolve import resolve
    from kdexp.sweep import plugins

    plugins.register()
    main.resolvers()
    with initialize_config_dir(main.CONFIG_PATH, version_base="1.3"):
        return resolve(compose("config", overrides=list(overrides)))


class Program:
    """Writes results of one study, as the program would with the data under ``root``."""

    def __init__(self, root: Path, study: str = "s"):
        self.root = root
        self.study = study
        self.results: list[dict[str, Any]] = []

    def partial(self, task: str) -> None:
        """Leave only the partial set of a task there."""
        for name in ("train", "validation"):
            path = self.root / "data" / "glue_partial" / task / f"{name}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    def run(
        self,
        *overrides: str,
        seed: int = 1,
        scores: dict[str, float],
        majority: float = 0.5,
        teacher: float = 0.9,
        rows: int = 2000,
    ) -> dict[str, Any]:
        """One finished run with ``scores`` on validation (fractions); ``majority`` and ``teacher`` in each metric."""
        from kdexp.common import registry
        from kdexp.config import identity
        from kdexp.run import spec

        config = copy.deepcopy(_configuration(overrides))
        config["seed"], config["study"], config["data"]["root"] = seed, self.study, str(self.root / "data")
        task = registry.build(config["task"])
        typed, wrong = spec.typed(config)
        assert typed is not None, wrong
        science = identity.science(typed.model_dump())
        result = make_result(self.study, "any", science["objective"]["name"], science["init"]["name"], seed)
        result["labels"] = {**identity.labels(typed), "task": task.shown_name(config["data"]["root"])}
        result["science"], result["selection"] = science, config["selection"]
        name = identity.run_name(typed, identity.run_id(science))
        folder = f"multirun/{self.study}/{name}"
        result["run"] = {
            "id": identity.run_id(science), "name": name, "study": self.study, "seed": seed, "folder": folder
        }  # fmt: skip
        result["task"] |= {
            "kind": task.head.name,
            "metric": task.metric,
            "metrics": list(task.metrics),
            "data_hash": f"content of {task.name}",
            "rows": {"validation": rows},
            "majority": {"validation": dict.fromkeys(task.metrics, majority)},
        }
        assert set(scores) <= set(task.metrics)
        result["scores"] = {"validation": scores}
        result["teacher"]["scores"] = {"validation": dict.fromkeys(task.metrics, teacher)}
        self.results.append(result)
        return result
