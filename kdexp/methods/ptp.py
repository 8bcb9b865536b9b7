"""PTP: pretrain the student to predict how sure and how right its teacher is (Pea-KD, arXiv 2009.14822).

One stage before the student's first: :class:`kdexp.inits.ptp.PTP` asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from kdexp.config.schema import Config
from kdexp.heads.base import Head
from kdexp.heads.classification import LABEL, Classification
from kdexp.inits.ptp import ptp_confidence, ptp_labels, ptp_median_thresholds
from kdexp.methods import distill
from kdexp.methods.base import Facts, Method
from kdexp.store.stage import Stage
from kdexp.tasks.base import Dataset, Goal, Predictions, Relabelled, Targets
from kdexp.train.phase import Phase, Summary

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
        keys = ("epochs", "learning_rate", "batch_size", "layout_epochs")
        own = {key: init[key] for key in keys if init.get(key) is not None}
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
class Verdicts(Goal):
    """The four classes: what the student is pretrained on. The data are the task's, labelled anew."""

    name: str = "ptp"

    @property
    def head(self) -> Head:
        """One of the four classes."""
        return Classification(CLASSES)

    def evaluate(self, predictions: Predictions, targets: Targets) -> dict[str, float]:
        """Return the accuracy."""
        return {"accuracy": float((predictions["logits"].argmax(-1) == targets[LABEL]).mean())}


def pretrain(phase: Phase) -> Summary:
    """Label train by the teacher's confidence and correctness, train the student on it, keep the weights."""
    data, thresholds = _relabelled(phase)
    counts = {name: _counts(split) for name, split in data.items()}
    phase.context.say(f"PTP: thresholds {thresholds[0]:.4f}, {thresholds[1]:.4f}; classes on train: {counts['train']}")
    phase.goal = Verdicts()
    model = phase.model()
    hard = {"ptp": {"_target_": "kdexp.objectives.finetune.Finetune", "weight": 1.0, "pairs": []}}
    phase.train(phase.student(model, hard, data), data=data)
    phase.save(model)
    phase.measure(model, data)
    phase.summary.more = {"thresholds": thresholds, "classes": counts}
    return phase.summary


def _relabelled(phase: Phase) -> tuple[dict[str, Dataset], list[float]]:
    """Return the splits with the teacher's verdicts for labels, and the two thresholds (from train alone)."""
    init, judged, data = phase.settings["init"], phase.settings["selection"], phase.data()
    model = phase.teacher_model(phase.folder("teacher"))
    verdicts = {}
    for name in ["train"] + ([judged] if judged != "last" else []):
        logits = torch.from_numpy(phase.answers(model, name)["logits"])
        verdicts[name] = ptp_confidence(logits, torch.tensor(data[name].targets[LABEL]))
    given = [init.get("t1"), init.get("t2")]
    if None in given:
        medians = ptp_median_thresholds(*verdicts["train"])
        given = [median if asked is None else asked for asked, median in zip(given, medians, strict=True)]
    labels = {name: ptp_labels(*verdict, *given).numpy() for name, verdict in verdicts.items()}
    return {n: Relabelled(data[n], {LABEL: labels[n]}) for n in labels}, [float(threshold) for threshold in given]


def _counts(split: Dataset) -> dict[str, int]:
    """Count the examples of each class; a teacher that is right everywhere leaves two of them empty."""
    return dict(zip(CLASSES, np.bincount(split.targets[LABEL], minlength=4).tolist(), strict=True))
