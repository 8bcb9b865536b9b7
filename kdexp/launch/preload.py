"""Imported once by the process that later processes are forked from, so that they start in a tenth of a second.

Nothing here may start a thread or touch a GPU: neither survives a fork.
"""

from __future__ import annotations

import gc
import importlib
import warnings

MODULES = (
    "torch",
    "numpy",
    "safetensors.torch",
    "sklearn.metrics",
    "scipy.stats",
    "filelock",
    "omegaconf",
    "rich.progress",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.bert.modeling_bert",
    "transformers.models.bert.tokenization_bert",
    "kdexp.run.execute",
    "kdexp.methods.base",
    "kdexp.check.combinations",
    "kdexp.train.loop",
    "kdexp.train.student",
    "kdexp.models.build",
    "kdexp.models.capture",
    "kdexp.train.phase",
    "kdexp.run.progress",
    "kdexp.run.result",
    "kdexp.methods.distill",
    "kdexp.tasks.text.table",
)

for name in MODULES:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            importlib.import_module(name)
        except Exception:
            continue
gc.collect()
gc.freeze()  # shared pages stay shared
