"""A run: one grid point carried out, with its identity, folder, status and result."""

from __future__ import annotations

import importlib
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kdexp.common import files
from kdexp.common.redact import without_passwords
from kdexp.common.status import read_status, state, write_status
from kdexp.common.stop import Stop
from kdexp.config.resolve import ConfigError, problems, science
from kdexp.store.stage import SCHEMA, Stage, digest

ROOT = "multirun"
log = logging.getLogger("kdexp")

__all__ = ["execute", "finished", "folder", "identity", "label", "run_name", "stale", "state"]


def identity(config: dict[str, Any]) -> str:
    """Return the sha256 (hex) of the science in a resolved configuration: the same science is the same run."""
    return digest({"schema": SCHEMA, **science(config)})


def label(config: dict[str, Any], group: str) -> str:
    """Return a group's short name for tables: ``l3_sps2`` for shared parameters, ``kd_ft`` for a fine-tuned start."""
    chosen = config.get(group) or {}
    name, sharing = str(chosen.get("name") or "none"), str(chosen.get("sharing", "none"))
    if group == "student" and sharing != "none" and sharing not in name:
        name += f"_{sharing}"
    return f"{name}_ft" if group == "objective" and chosen.get("start", "raw") == "fine_tuned" else name


LABELS = ("teacher", "student", "objective", "mapping", "init", "task")


def run_name(config: dict[str, Any]) -> str:
    """Return the name of a run's folder: readable parts and eight digits of its identity."""
    parts = "-".join(label(config, group) for group in ("task", "objective", "init"))
    return f"{parts}-s{config['seed']}-{identity(config)[:8]}"


def folder(config: dict[str, Any]) -> Path:
    """Return a run's folder below ``multirun/<study>/``."""
    return Path(ROOT) / str(config["study"]) / run_name(config)


def finished(where: Path, config: dict[str, Any]) -> dict[str, Any] | None:
    """Return a run's result if it is there and belongs to this configuration, else None."""
    result = files.read_json(where / "result.json")
    return result if result is not None and result["run"]["id"] == identity(config) else None


def stale(config: dict[str, Any], result: dict[str, Any]) -> str | None:
    """Say what has changed below a finished run: the data's content or the teacher's weights; None if nothing has."""
    from kdexp.methods import base as plan

    now = plan.facts(config)
    pairs = (("data", result["task"]["data_hash"], now.data), ("teacher's weights", result.get("origin"), now.origin))
    for what, then, here in pairs:
        if then not in (None, here):
            far = config["runtime"].get("remote")
            places = f" and {far}/runs/{'/'.join(folder(config).parts[-2:])}" if far else ""
            return (
                f"{result['run']['folder']} is finished, but its {what} had another content then ({then[:19]}, now "
                f"{here[:19]}): give the study another name (study=...), or delete that folder{places} to run it again."
            )
    return None


def execute(config: dict[str, Any], overrides: list[str] | tuple[str, ...] = ()) -> dict[str, Any]:
    """Carry one run out in this process and return its result; a finished run returns the stored one.

    Args:
        config: resolved (:func:`kdexp.config.resolve`).
        overrides: the command line that led here, for the record.

    Raises:
        ConfigError: the configuration cannot work; nothing was written.
        Exception: whatever stopped the run; its folder says so.
    """
    from kdexp.store import shared_run

    where = folder(config)
    found = problems(config)
    if found:
        raise ConfigError(found)
    with shared_run.run(config, where) as pull:
        done = _known(where, config)
        return done if done is not None else _locked(config, list(overrides), where, pull)


def _known(where: Path, config: dict[str, Any]) -> dict[str, Any] | None:
    """Return the result of a run that is finished and still holds."""
    done = finished(where, config)
    changed = stale(config, done) if done is not None else None
    if changed:
        raise ConfigError([changed])
    return done


def _locked(config: dict[str, Any], overrides: list[str], where: Path, pull: Callable[[], None]) -> dict[str, Any]:
    """Carry a run out while no other process can, unless another machine has finished it."""
    from filelock import FileLock, Timeout

    where.mkdir(parents=True, exist_ok=True)
    lock = FileLock(where / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RuntimeError(f"{where} is being run by another process: wait for it, or stop it.") from error
    try:
        pull()
        return _known(where, config) or _execute(config, overrides, where)
    finally:
        lock.release()


def _execute(config: dict[str, Any], overrides: list[str], where: Path) -> dict[str, Any]:
    before = read_status(where)
    status = {
        "state": "running", "pid": os.getpid(), "host": socket.gethostname(), "started": _now(), "updated": _now(),
        "attempt": int(before.get("attempt", 0)) + 1, "error": None,
    }  # fmt: skip

    def mark(state: str, error: str | None = None) -> None:
        write_status(where, {**status, "state": state, "updated": _now(), "error": error})

    mark("running")
    _write_hydra(where, config, overrides)
    stop = Stop()
    from kdexp.tracking import Tracker
    from kdexp.train.loop import Interrupted

    with _logging(where), stop.listening():
        tracker = Tracker(where, config.get("tracking") or {})
        try:
            result = _carry_out(config, where, stop, tracker)
            files.write_json(where / "result.json", result)
            mark("finished")
            tracker.close()
            return result
        except (Interrupted, KeyboardInterrupt) as error:
            log.warning("interrupted: %s", error or "Ctrl-C")
            status["signal"] = stop.asked or None  # which one: a cluster's launcher queues the job again after SIGUSR2
            mark("interrupted", str(error) or "Ctrl-C")
            tracker.close()
            raise
        except BaseException as error:
            log.error("failed: %s: %s", type(error).__name__, error, exc_info=not isinstance(error, ValueError))
            mark("failed", f"{type(error).__name__}: {error}")
            tracker.close()
            raise


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S")


def _write_hydra(where: Path, config: dict[str, Any], overrides: list[str]) -> None:
    """Keep the resolved configuration and the command line, as Hydra would."""
    import yaml

    for name, value in (("config", config), ("overrides", overrides)):
        text = without_passwords(yaml.safe_dump(value, sort_keys=False))
        files.write_text(where / ".hydra" / f"{name}.yaml", text)


@contextmanager
def _logging(where: Path) -> Iterator[None]:
    """Send this process's log to the run's own file while the run lasts."""
    handler = logging.FileHandler(where / "run.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()


def _carry_out(config: dict[str, Any], where: Path, stop: Callable[[], bool], tracker: Any) -> dict[str, Any]:
    """Do what the plan says, stage by stage, and put the result together."""
    from kdexp.common import machine
    from kdexp.methods import base as plan
    from kdexp.run import progress
    from kdexp.run import result as results

    began = time.monotonic()
    runtime = config["runtime"]
    device = machine.decide_device(runtime["device"])
    threads = _threads(runtime["threads"])
    import torch

    from kdexp.store.replicated import open_store
    from kdexp.train.phase import Run

    known = plan.facts(config)
    stages = plan.stages(config, known)
    store = open_store(config, where)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(store.root / "cache" / "inductor"))  # shared by all processes
    with progress.Display(config, where.name, runtime["progress"]) as display:
        run = Run(
            config=config, device=torch.device(device), dtype=known.dtype, threads=threads, cache=store.root / "cache",
            say=log.info, stop=stop, show=display.show,
            write=lambda stage, step, epoch, values: tracker.log(stage, step, epoch, values), saved=store.saved,
        )  # fmt: skip
        log.info("run %s: %d stages on %s, %s, %d thread(s)", where.name, len(stages), device, known.dtype, threads)
        with store.using([stage.key for stage in stages]):
            done = _stages(stages, store, run, runtime["keep_weights"] == "none" and not runtime["efficiency"])
            found = results.assemble(config, where, stages, done, known, run, store, time.monotonic() - began)
    _tidy(config, where, stages, store)
    store.ended(stages)
    return found


def _threads(asked: int | None) -> int:
    import torch

    if asked is not None:
        torch.set_num_threads(asked)
    return torch.get_num_threads()


def _stages(stages: list[Stage], store: Any, run: Any, record: bool) -> dict[str, tuple[Any, bool]]:
    """Build or fetch every stage that the last one needs; key -> (finished, was there already).

    ``record``: nobody wants the student's weights, so the record of one that was distilled before is enough.
    """
    from kdexp.train.evaluate import floor

    done: dict[str, tuple[Any, bool]] = {}
    last = stages[-1]
    found = store.seek(last.key)
    if found is not None and (record or found.whole):  # the student is there already: its parents are read, not rebuilt
        for stage in stages:
            have = store.seek(stage.key)
            if have is not None:
                done[stage.key] = (have, True)
                if stage.name == "teacher":
                    floor(have.summary, run.task(), run.config["teacher"])
        return done
    for stage in stages:
        module, _, name = stage.action.rpartition(".")
        action = getattr(importlib.import_module(module), name)
        inputs = {role: done[parent.key][0] for role, parent in stage.parents.items()}
        done[stage.key] = store.build(
            stage, lambda work, a=action, s=stage, i=inputs: a(s, i, work, run), run.say, run.stop
        )
        if stage.name == "teacher":
            floor(done[stage.key][0].summary, run.task(), run.config["teacher"])
        run.say(f"stage {stage.name} {stage.key[:12]}: {'in the store already' if done[stage.key][1] else 'done'}")
    return done


def _tidy(config: dict[str, Any], where: Path, stages: list[Stage], store: Any) -> None:
    """Free the weights that neither a person nor another run of the study needs; the records of the stages stay."""
    from kdexp.store import leases

    private = [s for s in stages if not s.shared]
    drop = {"all": [], "final": private[:-1], "none": private}[config["runtime"]["keep_weights"]]
    still = leases.release(config, where, stages)
    for stage in drop:
        if stage.key not in still:
            store.drop_weights(stage.key)
