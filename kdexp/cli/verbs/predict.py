"""``python -m kdexp predict MODEL task=rte split=test out=FILE``: answers on rows without labels, ready to hand in."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

from kdexp.cli.words import CONFIG_PATH
from kdexp.common import arguments, files
from kdexp.common.arguments import Command, Key
from kdexp.common.problems import ConfigError, near
from kdexp.common.registry import build
from kdexp.config import choices


def predict(
    model: str, task: str, split: str, data: str, out: str, root: str, device: str, max_length: int | None
) -> int:
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
    folder, own = prediction.of_run(Path(model).expanduser())
    asked = prediction.Asked(
        folder=folder,
        task=build(_settings(task, own)),
        split=split,
        file=Path(data).expanduser() if data else None,
        root=root or os.environ.get("KDEXP_DATA"),
        cache=Path(os.environ.get("KDEXP_STORE", "multirun/.store")) / "cache",
        device=device,
        max_length=max_length,
    )
    try:
        with Display(f"predict {split}", enabled=True) as display:
            name, text = prediction.predict(asked, lambda done, of, rows: display.show("predict", None, done, of, rows))
    except ConfigError as error:
        raise ValueError(" ".join(error.problems)) from error
    path = target / name if target.is_dir() else target
    if path.exists():
        raise ValueError(f"{path} is there already: name another file, or a folder")
    files.write_text(path, text)
    print(f"{path}: task={asked.task.name} split={split}, in the form of {name}")
    return 0


def _settings(task: str, own: dict[str, Any] | None) -> dict[str, Any]:
    """Return the settings of the task that is meant: the run's own, or those of a choice of ``conf/task``.

    Raises:
        ValueError: there is none of that name.
    """
    if own is not None and task in ("", own["name"]):
        return own
    known = choices.names(Path(CONFIG_PATH) / "task")
    if task not in known:
        said = f"task={task} is unknown.{near(task, known)}" if task else "task= is needed, as the model is no run."
        raise ValueError(f"{said} Choose one of: {', '.join(known)}")
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with warnings.catch_warnings(), initialize_config_dir(CONFIG_PATH, version_base="1.3"):
        warnings.simplefilter("ignore")  # of Hydra, about kdexp's launchers, which are not asked here
        settings = OmegaConf.to_container(compose(f"task/{task}").task, resolve=True)
    assert isinstance(settings, dict)
    return {str(key): value for key, value in settings.items()}


def _length(text: str) -> int | None:
    length = arguments.whole(text) if text else None
    if length is not None and length < 8:
        raise ValueError("is below 8")
    return length


VERB = Command(
    "What a saved model answers on rows without labels, as the leaderboard of its task takes it (GLUE: a TSV; SQuAD: "
    "the official JSON).",
    predict,
    {
        "model": Key("folder of a run, or of a saved model with its tokenizer", bare=True),
        "out": Key("file to write; a folder: a file in it, named as the leaderboard names it"),
        "task": Key("one of conf/task; empty: the run's own", ""),
        "split": Key("name of the rows, as the task's folder or the hub has them", "test"),
        "data": Key("file of the rows; empty: where the task's data are", ""),
        "root": Key("local data root; empty: KDEXP_DATA", ""),
        "device": Key("cpu, cuda, or auto", "auto"),
        "max_length": Key("tokens after which an input is cut; empty: as the model was trained", "", kind=_length),
    },
)
