"""Several devices a run: what cannot be shared out among them. How many a machine has is asked where a run starts."""

from __future__ import annotations

from kdexp.common import machine
from kdexp.common.registry import RESERVED, build
from kdexp.config.schema import Config
from kdexp.models.families.base import family
from kdexp.objectives.base import Objective


def problems(config: Config, objectives: bool = True) -> list[str]:
    """Return why ``runtime.devices`` cannot work with the rest of a configuration, as sentences for people.

    Args:
        objectives: they are sound, so that they can be asked.
    """
    runtime, teacher = config.runtime, config.teacher
    launched = machine.launched()
    count = runtime.devices if launched == 1 else launched
    found = _sharding(config, count) + _compiled(config, count) + _alone(config)
    if launched > 1 and runtime.devices not in (1, launched):
        found.append(
            f"runtime.devices={runtime.devices} but torchrun has started {launched} processes: leave runtime.devices "
            "out, or start without torchrun."
        )
    if count == 1:
        return found
    if runtime.device.startswith("cuda:"):
        found.append(
            f"runtime.device={runtime.device} is one device and runtime.devices={count} asks for {count}: use "
            "runtime.device=cuda (CUDA_VISIBLE_DEVICES says which)."
        )
    if family(str(teacher.family)).batch_norm:
        found.append(
            f"runtime.devices={count}: batch normalisation (family {teacher.family}) sees the slice of one device at a "
            "time, so several are not the same as one batch; use runtime.devices=1."
        )
    trained = [("recipe", config.recipe)] + ([("teacher.recipe", teacher.recipe)] if teacher.finetune else [])
    for name, recipe in trained:
        slices = count * recipe.accumulation
        if recipe.batch_size % slices:
            parts = f"{count} devices" + (
                f" and {name}.accumulation={recipe.accumulation}" if recipe.accumulation > 1 else ""
            )
            found.append(
                f"runtime.devices={count} does not divide {name}.batch_size={recipe.batch_size}: with {parts} it must "
                f"be a multiple of {slices}; change one of them."
            )
    return found + (_undivided(config, count) if objectives else [])


def _sharding(config: Config, count: int) -> list[str]:
    if not config.runtime.shard_teacher:
        return []
    found = []
    if count == 1:
        found.append(
            "runtime.shard_teacher=true has no effect with runtime.devices=1: give a run several, or set it to false."
        )
    if config.runtime.teacher_cache != "off":
        found.append(
            f"runtime.shard_teacher=true with runtime.teacher_cache={config.runtime.teacher_cache}: what a teacher "
            "says is stored by one process, which would have to hold all of it; use runtime.teacher_cache=off."
        )
    return found


def _compiled(config: Config, count: int) -> list[str]:
    runtime, mode = config.runtime, config.runtime.compile_mode
    if mode == "default":
        return []
    asked = f"runtime.compile_mode={mode}"
    if runtime.compile == "false":
        return [f"{asked} has no effect with runtime.compile=false: use runtime.compile_mode=default."]
    if mode != "reduce-overhead":
        return []
    found = []
    if runtime.device == "cpu":
        found.append(f"{asked} records CUDA graphs and runtime.device=cpu: use runtime.compile_mode=default.")
    if count > 1:
        found.append(f"{asked} with {count} devices: their exchange is in no graph; use runtime.compile_mode=default.")
    parts = {"recipe": config.recipe.accumulation, "teacher.recipe": config.teacher.recipe.accumulation}
    found += [
        f"{asked} with {name}.accumulation={count}: a recorded graph writes its gradients where it wrote the last "
        "ones, so they cannot be summed; use 1, or runtime.compile_mode=default."
        for name, count in parts.items()
        if count > 1
    ]
    return found


def _alone(config: Config) -> list[str]:
    """A size that somebody names for cohorts, where no run is in one (:func:`kdexp.launch.cohorts.most`)."""
    runtime = config.runtime
    alone = [f"runtime.devices={runtime.devices}"] if runtime.devices > 1 else []
    alone += [f"runtime.compile_mode={runtime.compile_mode}"] if runtime.compile_mode == "reduce-overhead" else []
    if not alone or runtime.cohort in ("auto", "off", "1"):
        return []
    return [
        f"runtime.cohort={runtime.cohort} has no effect with {alone[0]}, where each run has its process for itself: "
        "use runtime.cohort=auto."
    ]


def _undivided(config: Config, count: int) -> list[str]:
    found = []
    for phase in ("intermediate", "prediction"):
        for name, spec in getattr(config.objective, phase).items():
            objective: Objective = build(spec, (*RESERVED, "pairs"))
            why = objective.undivided()
            if why:
                found.append(
                    f"objective.{phase}.{name} {why}, so {count} devices with a slice of the batch each would train "
                    "something else: use runtime.devices=1."
                )
    return found
