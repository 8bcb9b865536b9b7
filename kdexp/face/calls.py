"""The calls: each is a command line, carried out by the program itself in a process of its own."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from kdexp.cli.words import CONFIG_PATH
from kdexp.common import files
from kdexp.common.problems import ConfigError, near
from kdexp.config import choices
from kdexp.config.identity import ROOT
from kdexp.delivery.forms import RECORD, SHAPE
from kdexp.face import spelling, studies
from kdexp.face.outcomes import Export, Run
from kdexp.face.process import ask
from kdexp.face.studies import Study

if TYPE_CHECKING:
    import pandas as pd

Place = str | PathLike[str]
FRAMES = ".frames"
"""Below ``multirun/``: data frames that runs were made of, each in a folder named by its content."""
HUB = re.compile(r"[\w.-]+/[\w.-]+")


def distill(
    *words: str,
    teacher: Place | Run | None = None,
    data: Place | Mapping[str, pd.DataFrame] | None = None,
    columns: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    show: bool = True,
    **settings: Any,
) -> Run:
    """Distil a teacher into a student: one run, as ``python -m kdexp`` carries it out.

    A run is what its settings say: the same call finds a finished run again, or continues one that was stopped.

    Args:
        words: words of the command line as they are, for what is no keyword: ``"teacher.finetune=false"``.
        teacher: one of ``conf/teacher``, the folder of a saved model, ``OWNER/NAME`` on the hub,
            ``package:NAME/FOLDER``, or a :class:`Run`, whose student teaches. It is fine-tuned on the task first,
            unless told otherwise.
        data: one of ``conf/task``, a folder with a file ``train`` and a file ``validation`` (CSV, JSON lines, Parquet),
            or ``{"train": frame, "validation": frame}``.
        columns: the text columns, one or two; of the task's own unless given.
        labels: names of the classes, in the order of their ids.
        show: print what the run prints, as it comes.
        settings: everything else: a choice by its name (``student="l3"``, ``objective="kd"``), values as a dict
            (``recipe={"epochs": 3}``), or ``seed=2``. ``dry=True`` prints the plan and runs nothing.

    Returns:
        The run; its repr shows score, folder and student.

    Raises:
        ConfigError: something must change first; it holds all sentences, and nothing was started.
        RuntimeError: the run failed on the way.
        KeyboardInterrupt: a person stopped it; the run has saved itself.
    """
    several = [f"{key}={value}" for key, value in settings.items() if isinstance(value, list | tuple)]
    several += [f"experiment={settings['experiment']}"] if "experiment" in settings else []
    several += [word for word in words if word.startswith(("-", "experiment=", "+experiment="))]
    if several:
        raise ConfigError([f"{text}: this is one run; kdexp.study(NAME, ...) carries out several." for text in several])
    given = _teacher(teacher) + _data(data, settings, columns, labels)
    answer = ask([*given, *spelling.overrides(settings), *words], show)
    if answer.code or answer.run is None:
        raise answer.failure()
    return Run(answer.run)


def study(
    name: str,
    *words: str,
    teacher: Place | Run | list[str] | None = None,
    data: Place | Mapping[str, pd.DataFrame] | None = None,
    columns: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    **settings: Any,
) -> Study:
    """Return a study: one of ``conf/experiment``, one of your own, or one that was started before.

    Args:
        name: of an experiment, or of the study. ``study("quickstart")`` is ``python -m kdexp +experiment=quickstart``.
        words: words of the command line as they are: ``"recipe.learning_rate=1e-5,3e-5"``.
        teacher, data, columns, labels: as :func:`distill` takes them.
        settings: as :func:`distill` takes them; a list has the values to try: ``init=["first", "last"], seed=[1, 2]``
            makes four runs.

    Raises:
        ConfigError: there can be no study of that name.
    """
    if isinstance(teacher, list):
        settings["teacher"], teacher = teacher, None
    given = _teacher(teacher) + _data(data, settings, columns, labels)
    return studies.made(name, [*given, *spelling.overrides(settings, swept=True), *words])


def load(study: str, root: Place = ROOT, settings: str | Iterable[str] = "varied") -> pd.DataFrame:
    """Return a study's finished runs as a data frame, a row a run.

    Args:
        study: its name.
        root: the folder that holds the studies.
        settings: which have columns under their dotted names: ``varied`` (those in which the runs differ), ``all``, or
            a list of names.

    Returns:
        Labels, ``seed``, ``score`` (``metric`` on validation, a fraction), cost, every score by
        ``WHO.SPLIT.METRIC``, and the settings.

    Raises:
        ValueError: there is no such study, none of its runs is finished, or no run has such a setting.
    """
    return studies.load(study, Path(root), settings)


def predict(model: Place | Run, data: Any, show: bool = False, **keys: Any) -> pd.DataFrame:
    """Return what a model answers: the rows with ``prediction`` and a probability a class beside them.

    Args:
        model: a run, its folder, a saved model (with ``task=``), or an exported form.
        data: a file (CSV, JSON lines, Parquet), a data frame, or a list of texts (for tasks of one text column).
        show: print its progress.
        keys: further keys of ``python -m kdexp predict``: ``task``, ``max_length``, ``threads``.

    Raises:
        ConfigError: model and rows do not fit, in sentences.
    """
    import pandas as pd

    folder = Path(model.folder if isinstance(model, Run) else model)
    if "out" in keys:
        raise ConfigError([f"out={keys['out']!r}: answers are returned here, not written; leave it out."])
    with tempfile.TemporaryDirectory() as place:
        file = data
        if not isinstance(data, str | PathLike):
            rows = data if isinstance(data, pd.DataFrame) else _rows(folder, data, keys.get("task"))
            file = Path(place) / "rows.parquet"
            try:
                rows.to_parquet(file, index=False)
            except (ValueError, TypeError, OverflowError) as error:  # of pandas, or of PyArrow
                raise ConfigError([f"data is a data frame that Parquet does not hold ({error})."]) from error
        out = Path(place) / "answers.parquet"
        ask(["predict", *spelling.plain({"model": folder, "data": fspath(file), "out": out, **keys})], show)
        answers = pd.read_parquet(out)
    if isinstance(data, pd.DataFrame):  # its own columns come back as they were given
        return data.assign(**{name: answers[name].to_numpy() for name in answers.columns[data.shape[1] :]})
    return answers


def export(
    model: Place | Run, out: Place, forms: Sequence[str] | None = None, show: bool = True, **keys: Any
) -> Export:
    """Write a student in forms that run without kdexp, each checked against the plain one, with a table and a card.

    Args:
        model: a run, its folder, or a saved model (with ``task=``).
        out: the folder to make.
        forms: beside the plain one: ``["onnx", "onnx_int8"]`` unless given.
        show: print what is done, and the table.
        keys: further keys of ``python -m kdexp export``: ``timed``, ``teacher``, ``threads``, ``push``, ...

    Raises:
        ConfigError: it cannot be delivered, in sentences; nothing was written.
        RuntimeError: forms could not be made; the others, and the plain one, are there.
    """
    folder = Path(model.folder if isinstance(model, Run) else model)
    answer = ask(["export", *spelling.plain({"model": folder, "out": fspath(out), "forms": forms, **keys})], show)
    made = Export(Path(out).expanduser().absolute())
    if answer.code:
        if not (made.folder / "table.csv").is_file():
            raise answer.failure()
        failed = made.table.dropna(subset="failed")
        if failed.empty:  # what came after the forms
            raise answer.failure()
        each = [f"{row.model} as {row.form} could not be made: {row.failed}" for row in failed.itertuples()]
        raise RuntimeError(f"{made.folder}: " + "; ".join(each))
    return made


def _known(group: str) -> list[str]:
    return choices.names(Path(CONFIG_PATH) / group)


def _teacher(teacher: Place | Run | None) -> list[str]:
    """Return the words that choose a teacher."""
    if teacher is None:
        return []
    if isinstance(teacher, Run):
        if teacher.student is None:
            raise ConfigError([f"teacher={teacher.folder}: the run has kept no student (runtime.keep_weights=none)."])
        teacher = teacher.student
    text = fspath(teacher)
    if text in _known("teacher"):
        return [f"teacher={text}"]
    if not text.startswith(("hub:", "path:", "package:", "scratch:")):
        if Path(text).expanduser().exists() or isinstance(teacher, PathLike):
            text = f"path:{text}"
        elif HUB.fullmatch(text):
            text = f"hub:{text}"
        else:
            known = ", ".join(_known("teacher"))
            raise ConfigError(
                [f"teacher={text!r} is no folder here, no OWNER/NAME of the hub, and none of conf/teacher: {known}."]
            )
    return [f"teacher={'hub' if text.startswith('hub:') else 'local'}", *spelling.overrides({"teacher.source": text})]


def _data(
    data: Place | Mapping[str, pd.DataFrame] | None,
    settings: dict[str, Any],
    columns: Sequence[str] | None,
    labels: Sequence[str] | None,
) -> list[str]:
    """Return the words that say what is learned and where its rows are; takes ``task`` out of the other settings."""
    task = settings.pop("task", None)
    if isinstance(task, list | tuple) and data is None:
        settings["task"], task = task, None
    chosen, values = (None, task) if isinstance(task, Mapping) else (task, {})
    words: list[str] = []
    if isinstance(data, Mapping):
        data = _written(data, {"train", "validation", *values.get("files", {})})
    if data is not None and fspath(data) in _known("task"):
        if chosen not in (None, data):
            raise ConfigError(
                [f"data={data!r} is a task of kdexp's, and task={chosen!r} another one: name one of them."]
            )
        words = [f"task={data}"]
    elif data is not None:
        place = Path(data).expanduser()
        if not place.is_dir():
            raise ConfigError([_no_folder(place)])
        text = fspath(data)
        below = (
            text if text.startswith(("/", "~", "./", "../")) else f"./{text}"
        )  # or it would count from the data root
        words = [f"task={chosen or 'local'}", *spelling.overrides({"task.folder": below})]
    elif chosen is not None:
        words = [f"task={chosen}"]
    named = {"task.columns": columns, "task.label_names": labels}
    words += spelling.overrides({key: list(value) for key, value in named.items() if value is not None})
    return words + (spelling.overrides({"task": values}) if values else [])


def _no_folder(place: Path) -> str:
    if place.is_file():
        return (
            f"data={str(place)!r} is one file: put train and validation into files of these names in a folder, or give "
            '{"train": frame, "validation": frame}.'
        )
    return f"data={str(place)!r} is no folder here, and none of conf/task: {', '.join(_known('task'))}."


def _written(frames: Mapping[str, pd.DataFrame], read: set[str]) -> Path:
    """Write data frames to a folder that is named by their content, so that the same frames are the same run.

    Args:
        frames: by split.
        read: the splits that a run looks at.
    """
    texts, idle = {}, sorted(map(str, frames.keys() - read))
    if idle:
        raise ConfigError([f"data has {', '.join(idle)}, which no run reads: it reads {', '.join(sorted(read))}."])
    for split, frame in frames.items():
        if not hasattr(frame, "to_json"):
            raise ConfigError([f"data[{split!r}] is a {type(frame).__name__}: a pandas DataFrame is needed."])
        try:
            texts[str(split)] = frame.to_json(orient="records", lines=True, force_ascii=False)
        except (ValueError, TypeError, OverflowError) as error:
            raise ConfigError([f"data[{split!r}] cannot be written as JSON lines ({error})."]) from error
    content = hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()[:16]
    folder = Path(ROOT) / FRAMES / content
    for split, text in texts.items():
        files.write_text(folder / f"{split}.jsonl", text)
    return Path(f"./{folder}")


def _rows(folder: Path, texts: Iterable[str], task: Any) -> pd.DataFrame:
    """Return texts as rows under the name that a model's task reads."""
    import pandas as pd

    if isinstance(texts, Mapping):
        raise ConfigError([f"data is a {type(texts).__name__}: give a data frame (pandas.DataFrame(data)), or texts."])
    listed = [texts] if isinstance(texts, str) else list(texts)
    odd = [text for text in listed if not isinstance(text, str)]
    if odd:
        raise ConfigError([f"data has {odd[0]!r}, which is no text: give texts, a data frame, or a file."])
    record = files.read_record(folder / RECORD, SHAPE)
    path = folder / ".hydra" / "config.yaml"
    if task and task not in _known("task"):
        raise ConfigError([f"task={task} is unknown.{near(task, _known('task'))}"])
    if task:
        settings = yaml.safe_load((Path(CONFIG_PATH) / "task" / f"{task}.yaml").read_text(encoding="utf-8"))
    elif record:
        settings = record["task"]
    elif path.is_file():
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))["task"]
    else:
        raise ConfigError([f"model={folder} is no run and no exported form: say which task it answers (task=NAME)."])
    columns = settings.get("columns") or []
    if len(columns) != 1:
        raise ConfigError([
            f"data is a list of texts, and the task reads the columns {', '.join(columns) or 'that it names'}: give a "
            "data frame with these."
        ])  # fmt: skip
    return pd.DataFrame({columns[0]: listed})
