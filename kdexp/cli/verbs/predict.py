"""``python -m kdexp predict MODEL task=rte split=test out=FILE``: answers on rows without labels, ready to hand in."""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from kdexp.cli import settings
from kdexp.common import arguments, files
from kdexp.common.arguments import Command, Key
from kdexp.common.problems import ConfigError
from kdexp.common.registry import build
from kdexp.delivery.forms import RECORD, SHAPE

ENDINGS = (".csv", ".jsonl", ".parquet")
"""Of tables of answers."""


def predict(
    model: str, task: str, split: str, data: str, columns: list[str], out: str, root: str, device: str,
    max_length: int | None, threads: int, json: bool,
) -> int:  # fmt: skip
    """Write the file, and say where and in which form.

    Raises:
        ValueError: everything that stops it.
    """
    from kdexp.run import predict as prediction
    from kdexp.run.progress import Display

    target = Path(out).expanduser()
    if target.exists() and not target.is_dir():
        raise ValueError(f"out={out} is there already: name another file, or a folder")
    if not target.parent.is_dir():
        raise ValueError(f"out={out}: there is no folder {target.parent}")
    given = Path(model).expanduser()
    record = files.read_record(given / RECORD, SHAPE)
    folder, own = (given, record["task"]) if record else prediction.of_run(given)
    chosen, form = _named(settings.task(task, own), columns), record["form"] if record else "pytorch"
    if target.suffix in ENDINGS and target.is_dir():
        raise ValueError(f"out={out} is a folder: name a file")
    if target.suffix in ENDINGS:
        idle = [f"{k}={v}" for k, v, usual in (("split", split, "test"), ("root", root, ""), ("device", device, "auto"))
                if v != usual]  # fmt: skip
        if idle:
            raise ValueError(f"{', '.join(idle)} has no effect with out={out}: rows of data= are answered on the CPU")
        return _table(folder, form, chosen, data, target, threads, max_length, (record or {}).get("files", {}), json)
    if form != "pytorch":
        raise ValueError(f"out={out}: from the form {form} answers are written as {', '.join(ENDINGS)}")
    if threads != 1:
        raise ValueError(f"threads={threads} has no effect with out={out}: it is for {', '.join(ENDINGS)}")
    asked = prediction.Asked(
        folder=folder,
        task=build(chosen),
        split=split,
        file=Path(data).expanduser() if data else None,
        root=root or os.environ.get("KDEXP_DATA"),
        cache=Path(os.environ.get("KDEXP_STORE", "multirun/.store")) / "cache",
        device=device,
        max_length=max_length,
    )
    try:
        with Display(f"predict {split}", enabled=not json) as display:
            name, text = prediction.predict(asked, lambda done, of, rows: display.show("predict", None, done, of, rows))
    except ConfigError as error:
        raise ValueError(" ".join(error.problems)) from error
    path = target / name if target.is_dir() else target
    if path.exists():
        raise ValueError(f"{path} is there already: name another file, or a folder")
    files.write_text(path, text)
    if json:
        arguments.print_json({"file": path, "task": asked.task.name, "split": split, "rows": None, "form": form})
    else:
        print(f"{path}: task={asked.task.name} split={split}, in the form of {name}")
    return 0


def _named(task: dict[str, Any], columns: list[str]) -> dict[str, Any]:
    """The task's settings with other names of the columns that its texts stand in, in the same order."""
    if not columns:
        return task
    own = task.get("columns") if "label" in task else None  # of questions, the columns hold answers too
    if not own:
        raise ValueError(f"columns= has no effect with task={task['name']}, whose columns have fixed names")
    if len(columns) != len(own):
        raise ValueError(f"columns= names {len(columns)}, and task={task['name']} reads {len(own)}: {', '.join(own)}")
    return {**task, "columns": columns}


def _table(
    folder: Path, form: str, task: dict[str, Any], data: str, out: Path, threads: int, max_length: int | None,
    sums: dict[str, str], json: bool,
) -> int:  # fmt: skip
    """Write the rows of a file with the answers beside them; the form's files are compared with their checksums."""
    from kdexp.delivery import rows, subject
    from kdexp.run import predict as prediction
    from kdexp.run.progress import Display

    if not data:
        raise ValueError(f"data= is needed for out={out}: the file whose rows are answered")
    model = subject.Subject("model", folder, task, None, Path(tempfile.gettempdir()))
    file = Path(data).expanduser()
    asked = replace(model.asked, file=file, max_length=max_length)
    wrong = prediction.problems(asked, plain=form in ("pytorch", "bf16"))
    wrong += [
        f"{folder / name} is {'damaged' if (folder / name).is_file() else 'missing'}: it is not what was exported; "
        "export it again."
        for name, sha in sums.items()
        if not (folder / name).is_file() or files.checksum(folder / name) != sha
    ]
    if wrong:
        raise ValueError(" ".join(wrong))
    table = rows.read(file, model.task.head)
    rows.write(table, Path(os.devnull), out.suffix)  # what the format does not hold is said before hours of answers
    with Display("predict", enabled=not json) as display:
        columns, cut = rows.answered(
            model, form, file, threads, max_length,
            lambda done, of, examples: display.show("predict", None, done, of, examples),
        )  # fmt: skip
    with files.fresh(out) as aside:
        rows.write(table.assign(**columns), aside, out.suffix)
    if cut:
        said = f"{cut} of {len(table)} rows are longer than the model reads: only their beginning counts"
        print(said, file=sys.stderr)
    if json:
        arguments.print_json({"file": out, "task": task["name"], "split": None, "rows": len(table), "form": form})
    else:
        print(f"{out}: {len(table)} rows, answered by {folder} ({form})")
    return 0


def _length(text: str) -> int | None:
    length = arguments.whole(text) if text else None
    if length is not None and length < 8:
        raise ValueError("is below 8")
    return length


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.strip("[]").split(",")] if text else []
    if not all(names):
        raise ValueError("has an empty name")
    if len(set(names)) < len(names):
        raise ValueError("names a column twice")
    return names


VERB = Command(
    "What a saved model, or an exported form of one, answers on rows without labels: a table with probabilities, or as "
    "the leaderboard of its task takes it (GLUE: a TSV; SQuAD: the official JSON).",
    predict,
    {
        "model": Key("folder of a run, or of a saved model with its tokenizer", bare=True),
        "out": Key(
            "file to write: .csv, .jsonl, .parquet = the rows of data= with answers and probabilities beside them; "
            "another one, or a folder: as the leaderboard of the task takes it"
        ),
        "task": Key("one of conf/task; empty: the run's own", ""),
        "split": Key("name of the rows, as the task's folder or the hub has them", "test"),
        "data": Key("file of the rows; empty: where the task's data are", ""),
        "columns": Key(
            "columns of data= that hold the texts, in the task's order; empty: those the model was trained on",
            "",
            kind=_names,
        ),
        "root": Key("local data root; empty: KDEXP_DATA", ""),
        "device": Key("cpu, cuda, or auto", "auto"),
        "max_length": Key("tokens after which an input is cut; empty: as the model was trained", "", kind=_length),
        "threads": Key("threads that compute", "1", kind=arguments.positive),
        "json": arguments.JSON,
    },
)
