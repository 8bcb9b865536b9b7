"""``python -m kdexp export RUN out=FOLDER``: a student in forms that run without kdexp, checked, timed, with a card."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from kdexp.cli import settings
from kdexp.common import arguments, files
from kdexp.common.arguments import Command, Key
from kdexp.common.problems import ConfigError
from kdexp.delivery.forms import names


def export(
    model: str, out: str, forms: list[str], task: str, root: str, threads: int, timed: bool, teacher: bool, push: str,
    private: bool, register: str, uri: str, json: bool,
) -> int:  # fmt: skip
    """Write the forms, the table and the card; say what each costs.

    Raises:
        ValueError: everything that stops it.
    """
    from kdexp.delivery import card, subject, table
    from kdexp.delivery import export as delivery
    from kdexp.delivery import push as hub
    from kdexp.delivery import register as registry

    folder, target = Path(model).expanduser(), Path(out).expanduser()
    wrong = hub.problems(push, private) if push else [] if private else ["private=false has no effect without push=."]
    if wrong:
        raise ValueError(" ".join(wrong))
    cache = Path(os.environ.get("KDEXP_STORE", "multirun/.store")) / "cache"
    run = folder if (folder / "result.json").is_file() else None
    chosen = {} if run else settings.task(task, None)
    place = root or (None if run else os.environ.get("KDEXP_DATA"))
    subjects = subject.of_run(folder, place, cache, chosen)
    if run and task not in ("", subjects[0].settings["name"]):
        raise ValueError(
            f"task={task} has no effect: {folder} is a run of task={subjects[0].settings['name']}, whose student "
            "answers that; leave task= out"
        )
    if wrong := registry.problems(register, uri, subjects[0], run):
        raise ValueError(" ".join(wrong))
    try:
        rows = delivery.deliver(subjects if teacher else subjects[:1], forms, target, threads, timed, _say)
    except ConfigError as error:
        raise ValueError(" ".join(error.problems)) from error
    stated, metric = delivery.stated(threads, subjects[0].notes), subjects[0].task.metric
    table.write(target, rows, metric, stated)
    told = table.lines(rows, metric, stated)
    for path in (target / "README.md", target / delivery.PLAIN / "README.md"):
        files.write_text(path, card.text(subjects[0], rows, told))
    _report(target, told, json)
    failed = any(row.failed or row.untimed for row in rows)
    if register:
        plain, scores = target / delivery.PLAIN, {metric: rows[0].score}
        try:
            _say(f"registered {registry.register(register, plain, subjects[0], run, uri, scores)}")
        except ValueError as error:
            _say(str(error))
            failed = True
    if push:
        _say(f"{push}: {hub.push(target / delivery.PLAIN, push, private)}")
    return int(failed)


def _say(line: str) -> None:
    import sys

    print(line, file=sys.stderr, flush=True)


def _report(target: Path, told: list[str], as_json: bool) -> None:
    if as_json:
        arguments.print_json(json.loads((target / "table.json").read_text()))
    else:
        print("\n".join([*told, "", f"{target}: table.md, table.csv, table.json, README.md, a folder a form"]))


def _forms(text: str) -> list[str]:
    asked = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in asked if name not in names()]
    if unknown:
        raise ValueError(f"names forms that do not exist: {', '.join(unknown)}; there are {', '.join(names())}")
    return asked


KEYS: dict[str, Any] = {
    "model": Key("folder of a run, or of a saved model with its tokenizer", bare=True),
    "out": Key("folder to make; it gets a folder a form, table.md, README.md"),
    "forms": Key("forms beside pytorch, with commas: bf16, onnx, onnx_int8, ...", "onnx,onnx_int8", kind=_forms),
    "task": Key("one of conf/task; empty: the run's own", ""),
    "root": Key("local data root; empty: the run's own, of a saved model KDEXP_DATA", ""),
    "threads": Key("threads of each form while it is timed", "1", kind=arguments.positive),
    "timed": Key("measure latency, throughput and memory", "true", ("true", "false"), arguments.truth),
    "teacher": Key("put the teacher's forms into the table too", "true", ("true", "false"), arguments.truth),
    "push": Key("ORG/NAME on the hub, to send the plain student and its card to; empty: nowhere", ""),
    "private": Key("only owners see what is pushed", "true", ("true", "false"), arguments.truth),
    "register": Key("name of a registered model in MLflow, which gets the plain student as a new version", ""),
    "uri": Key("MLflow's store for register=; empty: MLFLOW_TRACKING_URI, else mlflow.db beside the studies", ""),
    "json": arguments.JSON,
}

VERB = Command(
    "A student in forms that run without kdexp: checked against PyTorch, scored, timed, with a model card.",
    export,
    KEYS,
)
