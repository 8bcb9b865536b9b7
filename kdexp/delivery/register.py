"""A delivered student as a version of a registered model in MLflow: its ``transformers`` flavour, loaded by pyfunc.

The files are those of the plain form: safetensors, configuration, tokenizer. Nothing is pickled, and nobody is asked
for a card, a licence or requirements: all of it is said here.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdexp.common import sqlite, tracked
from kdexp.common.redact import learn, outward, public
from kdexp.delivery.subject import Subject
from kdexp.tracking import mlflow_store
from kdexp.tracking.mlflow_store import Store, TrackingError, resolve
from kdexp.tracking.sync import BEHIND, send

if TYPE_CHECKING:
    import pandas as pd

TASK = "text-classification"
HEAD = "AutoModelForSequenceClassification"
EXPERIMENT = "exports"
"""Experiment of what no run of kdexp has made."""
SHOWN = 2
"""Texts of the input example."""
LONGEST_NAME = 256


def problems(name: str, given: str, subject: Subject, run: Path | None) -> list[str]:
    """Return everything that stops a registration, as sentences; the store is asked, and nothing is written to it.

    Args:
        name: of the registered model; '' = none is wanted.
        given: MLflow's store, as it was typed; '' = by the rule of runs.
        subject: the student.
        run: folder of the run that made it, or None.
    """
    if not name:
        return ["uri= has no effect without register=."] if given else []
    wrong, head, uri = list[str](), subject.task.head, _store(run, given)
    if not name.strip() or set(name) & set("/:") or not name.isprintable() or len(name) > LONGEST_NAME:
        wrong.append(
            f"register={name!r} is no name of a registered model: it takes any printable characters but / and :, at "
            f"most {LONGEST_NAME}."
        )
    if head.auto_class != HEAD:
        wrong.append(
            f"register={name}: MLflow runs students by transformers' pipeline {TASK}, and {subject.task.name} has a "
            f"head {head.name}, which that does not run: leave register= out, and take the exported folder."
        )
    if mlflow_store.problems({**mlflow_store.DEFAULTS, "uri": uri}):
        wrong.append(
            f"register={name}: {public(uri)!r} is no store that MLflow writes to: give uri=sqlite:///FOLDER/mlflow.db, "
            f"or uri=http://HOST:PORT, or set {tracked.VARIABLE}."
        )
    embedded = sqlite.path_of(uri)
    if not wrong and (embedded is None or embedded.exists()):  # else it is made when the student is there
        try:
            Store(resolve(uri)).client.search_registered_models(max_results=1)
        except Exception as error:
            wrong.append(f"register={name}: {_refused(uri, error)}")
    return wrong


def register(
    name: str, folder: Path, subject: Subject, run: Path | None, given: str, score: Mapping[str, float]
) -> str:
    """Write a new version of a registered model, and return its address ``models:/NAME/VERSION``.

    Args:
        name: of the registered model; made when there is none.
        folder: the plain form, with its card.
        subject: the student.
        run: folder of the run that made it; its run in MLflow then holds the files. None = it gets one of its own.
        given: MLflow's store, as it was typed.
        score: metrics of validation by name.

    Raises:
        ValueError: MLflow cannot hold it, or would answer otherwise than the folder does; a sentence.
    """
    uri = _store(run, given)
    learn(uri)
    try:
        return _register(name, folder, subject, run, resolve(uri), score)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"register={name}: {_refused(uri, error)}; {folder.parent} is whole without it") from error


def _store(run: Path | None, given: str) -> str:
    """Return the store that is meant: by the rule of runs, beside the run's study."""
    return tracked.uri("multirun" if run is None else run.parent.parent, given)


def _refused(uri: str, error: Exception) -> str:
    why = " ".join(outward(str(error)).split())[:300]
    return why if isinstance(error, TrackingError) else f"MLflow at {public(uri)} does not take it ({why})"


def _register(name: str, folder: Path, subject: Subject, run: Path | None, uri: str, score: Mapping[str, float]) -> str:
    from mlflow.exceptions import MlflowException

    store = Store(uri)
    with tempfile.TemporaryDirectory() as place:
        _save(Path(place) / "model", folder, subject)
        holder = _run(store, folder, run, Path(place))
        kept = f"models/{uuid.uuid4().hex[:12]}"  # an earlier version's files stay as they are
        store.client.log_artifacts(holder, str(Path(place) / "model"), kept)
    try:
        store.client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"{store.client.get_run(holder).info.artifact_uri}/{kept}"
    said = f"{subject.task.name}: a distilled student, " + ", ".join(f"{k} {100 * v:.1f}" for k, v in score.items())
    tags = {"task": subject.task.name, **{f"score.{metric}": f"{value:.6f}" for metric, value in score.items()}}
    version = store.client.create_model_version(name, source, holder, tags=tags, description=said)
    return f"models:/{name}/{version.version}"


def _run(store: Store, folder: Path, run: Path | None, place: Path) -> str:
    """Return the id of the MLflow run that holds the files, made when there is none; a lock may lie in ``place``."""
    if run is None:
        with store.lock(place):
            experiment = store.experiment(EXPERIMENT, folder.parent)
        tags = {"kdexp.kind": "export", "kdexp.name": folder.parent.name}
        made = store.client.create_run(experiment, run_name=folder.parent.name, tags=tags).info.run_id
        store.client.set_terminated(made)
        return str(made)
    outcome, why = send(run, store.uri, {})
    with store.lock(run.parent):
        experiment, _ = store.study(run.parent.name, run.parent)
    shown = store.find(experiment, "run", run.name)
    if shown is None or outcome == BEHIND:
        raise TrackingError(f"the run {run.name} cannot be shown in MLflow at {public(store.uri)} ({why})")
    return str(shown.info.run_id)


def _save(path: Path, folder: Path, subject: Subject) -> None:
    """Write the flavour, and load it once to see that it answers as the folder does.

    Raises:
        ValueError: it does not.
    """
    import mlflow
    import pandas as pd
    import torch
    import transformers
    from huggingface_hub import ModelCard

    pipe = transformers.pipeline(TASK, model=str(folder), device="cpu")
    pipe.model.config.name_or_path = pipe.model.name_or_path = ""  # the place on this machine, and no name on the hub
    example = _example(subject)
    asked = example if isinstance(example, list) else example.to_dict("records")
    told = pd.DataFrame(pipe(asked, truncation=True))
    versions = {"mlflow": mlflow.__version__, "torch": torch.__version__, "transformers": transformers.__version__}
    mlflow.transformers.save_model(
        pipe,
        str(path),
        task=TASK,
        model_card=ModelCard.load(str(folder / "README.md")),
        signature=mlflow.models.infer_signature(example, told),
        input_example=example,
        model_config={"truncation": True},
        pip_requirements=[f"{package}=={version.split('+')[0]}" for package, version in versions.items()],
    )
    (path / "LICENSE.txt").unlink(missing_ok=True)  # MLflow's guess; the card says what is known
    got = mlflow.pyfunc.load_model(str(path)).predict(example)
    if not got["label"].equals(told["label"]) or not (got["score"] - told["score"]).abs().max() < 1e-6:
        raise ValueError(f"MLflow's copy of {folder} answers otherwise than the folder does: it is not registered")


def _example(subject: Subject) -> list[str] | pd.DataFrame:
    """Return validation's first texts, or pairs of them in columns that transformers' pipeline takes."""
    import numpy as np
    import pandas as pd

    task: Any = subject.task  # of a sequence head: its rows are one text or two
    rows = task.labelled_rows(subject.root, subject.cache)["validation"]
    rows = rows.take(np.arange(min(SHOWN, len(rows))))
    return rows.first if rows.second is None else pd.DataFrame({"text": rows.first, "text_pair": rows.second})
