"""PTP: pretrain the student to predict how sure and how right its teacher is (Pea-KD, arXiv 2009.14822).

One stage before the student's first: :class:`kdexp.inits.ptp.PTP` asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdexp.config.schema import Config
from kdexp.methods import distill
from kdexp.methods.base import Facts, Method
from kdexp.store.stage import Stage
from kdexp.tasks.base import Encoded, Task

if TYPE_CHECKING:
    import numpy as np

    from kdexp.store.store import Finished
    from kdexp.train.phase import Run

CLASSES = ["confidently_correct", "unconfidently_correct", "confidently_wrong", "unconfidently_wrong"]
JUDGED = {"heldout_train": "heldout", "fixed_epochs": "last", "legacy_dev": "validation"}


class PTP(Method):
    """No way of its own through a run: it serves the init of the same name with a stage."""

    def problems(self, config: Config) -> list[str]:
        """See :class:`~kdexp.methods.base.Method`."""
        if config.init.get("select", "heldout_train") == "heldout_train" and config.data.heldout == 0:
            return ["init.select=heldout_train with data.heldout=0: nothing is held out; use init.select=fixed_epochs."]
        return []

    def plan(self, config: Config, facts: Facts) -> Stage:
        """There is none."""
        raise ValueError("objective.method=ptp lays no run out: choose init=ptp, which goes with any objective.")

    def init_stage(self, config: Config, facts: Facts, teacher: Stage | None) -> Stage:
        """Return the stage that pretrains the student's encoder."""
        init = config.init
        own = {key: init[key] for key in ("epochs", "learning_rate", "batch_size") if init.get(key) is not None}
        select = JUDGED[init.get("select", "heldout_train")]
        settings = {
            **distill.common(config, facts),
            "selection": select,
            "student": distill.student_settings(config),
            "init": distill.init_settings(config),
            "recipe": {**config.recipe.model_dump(), **own, "keep": "last" if select == "last" else "best"},
            "seed": config.seed,
        }
        parents = {"teacher": teacher or distill.teacher_stage(config, facts)}
        return Stage("ptp", "ptp.pretrain", settings, parents, shared=True)


@dataclass
class Verdicts(Task):
    """The four classes as a task: what the student is pretrained on. It has no data of its own."""

    name: str = "ptp"
    label_names: list[str] = field(default_factory=lambda: list(CLASSES))

    def evaluate(self, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Return the accuracy of logits (n, 4)."""
        return {"accuracy": float((logits.argmax(-1) == labels).mean())}

    def majority(self, train_labels: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Return the accuracy of the most frequent class of train."""
        import numpy as np

        return {"accuracy": float((labels == np.bincount(train_labels).argmax()).mean())}

    def _none(self, *ignored: Any, **named: Any) -> Any:
        raise NotImplementedError("these labels come from a teacher, not from files")

    problems = fingerprint = splits = encode = _none


def pretrain(stage: Stage, inputs: dict[str, Finished], work: Path, run: Run) -> dict[str, Any]:
    """Label train by the teacher's confidence and correctness, train the student on it, keep the weights."""
    from kdexp.models import build as models
    from kdexp.train import phase as train
    from kdexp.train.evaluate import majority, scores

    settings, four = stage.settings, Verdicts()
    data, thresholds = _relabelled(stage, inputs, run)
    counts = {name: _counts(split) for name, split in data.items()}
    run.say(f"PTP: thresholds {thresholds[0]:.4f}, {thresholds[1]:.4f}; classes on train: {counts['train']}")
    student, started = train._student(stage, {}, inputs["teacher"].folder, four, run)
    student.to(run.device)
    hard = {"ptp": {"_target_": "kdexp.objectives.finetune.Finetune", "weight": 1.0, "pairs": []}}
    one = train._member(student, hard, stage, {}, data, four, run, work, settings["recipe"])
    summary = train._train(stage, one, None, data, settings["recipe"], settings["seed"], run)
    student.eval()
    models.save(student, work)
    measured = {"scores": scores(student, data, four, run), "majority": majority(data, four)}
    return (
        summary | models.describe(student) | measured | {"init": started, "thresholds": thresholds, "classes": counts}
    )


def _relabelled(stage: Stage, inputs: dict[str, Finished], run: Run) -> tuple[dict[str, Encoded], list[float]]:
    """Return the splits with the teacher's verdicts for labels, and the two thresholds (from train alone)."""
    from dataclasses import replace

    import numpy as np
    import torch

    from kdexp.inits.ptp import ptp_confidence, ptp_labels, ptp_median_thresholds
    from kdexp.models import build as models
    from kdexp.train import teachers
    from kdexp.train.evaluate import predict

    init, data = stage.settings["init"], run.data(stage.settings["recipe"]["max_length"])
    model = models.load_teacher(run.config["teacher"], run.task(), inputs["teacher"].folder).to(run.device)
    judged = stage.settings["selection"]
    length, every = stage.settings["recipe"]["max_length"], np.arange(len(data["train"]))
    stored = teachers.Stored.open(inputs["teacher"].folder, length, torch.device("cpu"), every)
    verdicts = {}
    for name in ["train"] + ([judged] if judged != "last" else []):
        known = stored if name == "train" else None
        logits = known.logits if known else torch.from_numpy(predict(model, data[name], run))
        verdicts[name] = ptp_confidence(logits, torch.tensor(data[name].labels))
    given = [init.get("t1"), init.get("t2")]
    if None in given:
        given = [
            g if g is not None else m for g, m in zip(given, ptp_median_thresholds(*verdicts["train"]), strict=True)
        ]
    labels = {name: ptp_labels(*verdict, *given).numpy() for name, verdict in verdicts.items()}
    return {name: replace(data[name], labels=labels[name]) for name in labels}, [float(t) for t in given]


def _counts(split: Encoded) -> dict[str, int]:
    """Count the examples of each class; a teacher that is right everywhere leaves two of them empty."""
    import numpy as np

    return dict(zip(CLASSES, np.bincount(split.labels, minlength=4).tolist(), strict=True))
