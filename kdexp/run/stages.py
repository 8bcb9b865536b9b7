"""A run's stages, built or fetched in order, and its result put together from them."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from kdexp.common import machine, turns
from kdexp.common.turns import Turns
from kdexp.config.schema import Runtime
from kdexp.methods import base as methods
from kdexp.methods import pretraining
from kdexp.models import source
from kdexp.run import crew, progress
from kdexp.run import result as results
from kdexp.run.spec import RunSpec, facts
from kdexp.store import leases
from kdexp.store.replicated import open_store
from kdexp.store.stage import Stage
from kdexp.train.context import RunContext
from kdexp.train.evaluate import floor
from kdexp.train.phase import Phase

log = logging.getLogger("kdexp")


def carry_out(
    spec: RunSpec, stop: Callable[[], bool], write: Callable[..., None], together: Turns | None = None
) -> dict[str, Any]:
    """Do what the method says, stage by stage, and return the run's result.

    Args:
        spec: the run.
        stop: becomes true when the run is asked to stop.
        write: ``(stage, step, epoch, values)`` to the run's metrics file.
        together: turns of the runs of this process, of which this is one; None = it is alone.
    """
    began, config = turns.clock(), spec.config
    device = machine.decide_device(config.runtime.device)
    threads = _threads(config.runtime, device)
    own = source.own(config)
    for model in filter(None, (config.teacher, own)):
        source.fetch(model)  # another machine than the one that asked may have another cache
    known = facts(config)
    stages = methods.stages(config, known)
    store = open_store(config, spec.run_dir)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(store.root / "cache" / "inductor"))  # shared by all processes
    alone = together is None  # two bars on one terminal would write over each other
    with progress.Display(spec.name, config.runtime.progress and (alone or turns.number() == 0)) as display:
        run = RunContext(
            config=config, device=torch.device(device), dtype=known.dtype, threads=threads, cache=store.root / "cache",
            say=log.info, stop=stop, show=display.show, write=write, saved=store.saved,
            turns=together,
        )  # fmt: skip
        log.info("run %s: %d stages on %s, %s, %d thread(s)", spec.name, len(stages), device, known.dtype, threads)
        log.info("teacher %s: %s", config.teacher.name, known.origin)
        if own is not None:
            log.info("student %s: %s", own.name, known.own)
        if config.task.get("hub_commit"):
            log.info("task %s: read from the hub at commit %s", config.task["name"], config.task["hub_commit"])
        record = config.runtime.keep_weights == "none" and not config.runtime.efficiency
        for line in run.task().record(config.data.root, run.cache):
            log.info("%s", line)
        with store.using([stage.key for stage in stages]):
            done = build(stages, store, run, record)
            result = results.assemble(spec, stages, done, known, run, turns.clock() - began)
    _tidy(spec, stages, store)
    store.ended(stages)
    return result


def _threads(runtime: Runtime, device: str) -> int:
    asked, given = runtime.threads, _given_threads()
    if asked is None and runtime.devices > 1 and device == "cpu":  # its processes share this machine
        asked = max(1, given // runtime.devices)
    if asked is not None:
        torch.set_num_threads(asked)
    return torch.get_num_threads()


@cache
def _given_threads() -> int:
    """Return the threads of this process before its first run has set any."""
    return torch.get_num_threads()


def build(stages: list[Stage], store: Any, run: RunContext, record: bool) -> dict[str, tuple[Any, bool]]:
    """Build or fetch every stage that the last one needs; key -> (finished, was there already).

    ``record``: nobody wants the student's weights, so the record of one that was distilled before is enough.
    """
    student = store.seek(stages[-1].key)
    if student is not None and (record or student.whole):  # it is there already: its parents are read, not rebuilt
        there = {stage.key: store.seek(stage.key) for stage in stages}
        if all(there.values()):  # a result that lacks what a parent's record says would be another one
            for stage in stages:
                _taught(stage, there[stage.key], run)
                _gate(stage, there[stage.key], run)
            return {key: (finished, True) for key, finished in there.items()}
    done: dict[str, tuple[Any, bool]] = {}
    with crew.gathered(run) as run.ranks:
        run.device = run.ranks.device(str(run.device))
        for stage in stages:
            inputs = {role: done[parent.key][0] for role, parent in stage.parents.items()}
            done[stage.key] = store.build(
                stage, lambda work, s=stage, i=inputs: _carried_out(s, i, work, _context(s, run)), run.say, run.stop
            )
            _taught(stage, done[stage.key][0], run)
            _gate(stage, done[stage.key][0], run)
            run.say(f"stage {stage.name} {stage.key[:12]}: {'in the store already' if done[stage.key][1] else 'done'}")
    return done


def _carried_out(stage: Stage, inputs: dict[str, Any], work: Path, run: RunContext) -> dict[str, Any]:
    crew.order(run, stage)
    return methods.action(stage.action)(Phase(stage, inputs, work, run)).to_dict()


def _context(stage: Stage, run: RunContext) -> RunContext:
    """Return the machinery around a stage: the run's, with the stage's own configuration where it has one."""
    if stage.config is None:
        return run
    config = stage.config
    if pretraining.wanted(config):  # it has been carried out, and the run's teacher is its result
        config = config.model_copy(update={"teacher": pretraining.made(config, run.config.teacher.source)})
    return replace(run, config=config)


def _taught(stage: Stage, finished: Any, run: RunContext) -> None:
    """Let the run's teacher be what the stage has left, if that has pretrained it."""
    if stage.name == pretraining.NAME:
        told = {"teacher": pretraining.made(run.config, f"path:{finished.folder}")}
        run.config = run.config.model_copy(update=told)


def _gate(stage: Stage, finished: Any, run: RunContext) -> None:
    """Let a teacher teach only if it beats the trivial answer."""
    if stage.role == "teacher":
        floor(finished.summary, run.task(), run.config.teacher)


def _tidy(spec: RunSpec, stages: list[Stage], store: Any) -> None:
    """Free the weights that neither a person nor another run of the study needs; the records of the stages stay."""
    private = [stage for stage in stages if not stage.shared]
    drop = {"all": [], "final": private[:-1], "none": private}[spec.config.runtime.keep_weights]
    outline = [stage.key for stage in spec.outline]
    needed = leases.release(store.root, spec.run_dir, dict(zip(outline, (s.key for s in stages), strict=True)))
    for stage in drop:
        if stage.key not in needed:
            store.drop_weights(stage.key)
