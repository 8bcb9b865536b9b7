"""GLUE as ``nyu-mll/glue`` holds it: a folder a configuration, a parquet file a split, the schema in the README."""

from __future__ import annotations

import io
from pathlib import Path

import yaml

from tests.conftest import sentence
from tests.hub.repositories import Repository
from tests.hub.server import Hub

PAIRED = ["sentence1", "sentence2"]
ENTAILED = ["entailment", "not_entailment"]
NLI = ["entailment", "neutral", "contradiction"]
CONFIGURATIONS: dict[str, tuple[list[str], list[str]]] = {
    "ax": (["premise", "hypothesis"], NLI),
    "cola": (["sentence"], ["unacceptable", "acceptable"]),
    "mnli": (["premise", "hypothesis"], NLI),
    "mnli_matched": (["premise", "hypothesis"], NLI),
    "mnli_mismatched": (["premise", "hypothesis"], NLI),
    "mrpc": (PAIRED, ["not_equivalent", "equivalent"]),
    "qnli": (["question", "sentence"], ENTAILED),
    "qqp": (["question1", "question2"], ["not_duplicate", "duplicate"]),
    "rte": (PAIRED, ENTAILED),
    "sst2": (["sentence"], ["negative", "positive"]),
    "stsb": (PAIRED, []),
    "wnli": (PAIRED, ["not_entailment", "entailment"]),
}
"""Text columns and label names of each configuration; no names = scores from 0 to 5."""

_PARTS = [f"{split}_{part}" for split in ("validation", "test") for part in ("matched", "mismatched")]
_UNTRAINED = ["validation", "test"]
SPLITS = {"ax": ["test"], "mnli": ["train", *_PARTS], "mnli_matched": _UNTRAINED, "mnli_mismatched": _UNTRAINED}
"""Splits of the configurations that have others than train, validation and test."""


def publish_glue(hub: Hub, rows: int = 48, id: str = "nyu-mll/glue") -> Repository:
    """Put the data set on a hub: ``rows`` rows of train a configuration, half as many of each other split.

    The words tell two classes apart, and low scores from high ones, as in :func:`tests.conftest.sentence`; labels of
    test splits are hidden (-1). The README counts what is there: the library refuses other numbers.
    """
    files: dict[str, bytes | str | Path] = {".gitattributes": "*.parquet filter=lfs diff=lfs merge=lfs -text\n"}
    infos, configs = [], []
    for name, (columns, names) in CONFIGURATIONS.items():
        splits = []
        for split in SPLITS.get(name, ["train", "validation", "test"]):
            count = rows if split == "train" else rows // 2
            content = _parquet(columns, names, split, count)
            files[f"{name}/{split}-00000-of-00001.parquet"] = content
            splits.append({"name": split, "num_bytes": len(content), "num_examples": count})
        infos.append({"config_name": name, "features": _features(columns, names), "splits": splits})
        listed = [{"split": split["name"], "path": f"{name}/{split['name']}-*"} for split in splits]
        configs.append({"config_name": name, "data_files": listed})
    said = {"language": ["en"], "pretty_name": "GLUE", "config_names": list(CONFIGURATIONS)}
    card = yaml.safe_dump(said | {"dataset_info": infos, "configs": configs}, sort_keys=False)
    files["README.md"] = f"---\n{card}---\n\n# Dataset Card for GLUE\n"
    repository = hub.repository(id, "dataset")
    repository.commit(files)
    return repository


def _features(columns: list[str], names: list[str]) -> list[dict[str, object]]:
    label: object = {"class_label": {"names": {str(i): name for i, name in enumerate(names)}}} if names else "float32"
    texts: list[dict[str, object]] = [{"name": column, "dtype": "string"} for column in columns]
    return [*texts, {"name": "label", "dtype": label}, {"name": "idx", "dtype": "int32"}]


def _parquet(columns: list[str], names: list[str], split: str, rows: int) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    start = 0 if split == "train" else 1000 + 100 * len(split)
    ids = range(start, start + rows)
    table = {column: pa.array([sentence(row + k, row % 2) for row in ids]) for k, column in enumerate(columns)}
    if names:
        labels = [-1 if split.startswith("test") else row % len(names) for row in ids]
        table["label"] = pa.array(labels, pa.int64())
    else:
        scores = [-1.0 if split.startswith("test") else 2.5 * (row % 2) + 0.5 * (row % 5) for row in ids]
        table["label"] = pa.array(scores, pa.float32())
    table["idx"] = pa.array(range(rows), pa.int32())
    out = io.BytesIO()
    pq.write_table(pa.table(table), out)
    return out.getvalue()
