"""The card of a data set on the hub: what the head of its README promises, against what a task wants of it.

The card is a small file that is fetched when the commit is asked for, so a wrong configuration, split or column is
known before anything is written. What a card does not say is left to whoever reads the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

LARGEST = 2_000_000
"""Bytes of a card that is read; that of a data set with hundreds of configurations has some 100,000."""
DEEPEST = 32


def problems(
    card: Path,
    dataset: str,
    config: str | None,
    splits: Sequence[str],
    columns: Sequence[str],
    names: Sequence[str] = (),
    label: str = "label",
) -> list[str]:
    """Say what a task asks for and a data set does not have, by its card; sentences without a full stop.

    Args:
        card: its README.md; it need not be there.
        dataset: the hub's id.
        config: the configuration, or None for the default one.
        splits: names of those that are needed, as the hub calls them.
        columns: that are needed, the label's included.
        names: of the classes, by id.
        label: column of the labels.
    """
    said = _head(card)
    listed = {str(entry.get("config_name")): entry for entry in _entries(said.get("configs"))}
    where = f"task.hub={dataset}"
    if config is not None and listed and config not in listed:
        return [f"{where} has no configuration {config}: set task.hub_config to one of {', '.join(listed)}"]
    if config is None and len(listed) > 1 and not _default(listed):
        return [f"{where} has several configurations: set task.hub_config to one of {', '.join(listed)}"]
    chosen = config if config is not None else _default(listed)
    wrong = []
    files = _entries(listed.get(str(chosen), {}).get("data_files"))
    have = [str(entry["split"]) for entry in files if "split" in entry]
    absent = [split for split in splits if have and split not in have]
    if absent:
        wrong.append(f"{where} has no split {', '.join(absent)}; it has {', '.join(have)}: change task.hub_splits")
    features = {str(entry.get("name")): entry for entry in _features(said.get("dataset_info"), chosen)}
    lacking = [column for column in columns if features and column not in features]
    if lacking:
        have = list(features)
        wrong.append(
            f"{where} has no column {', '.join(lacking)}; it has {', '.join(have)}: change task.columns or task.label"
        )
    classes = _classes(features.get(label, {}))
    if classes and sorted(classes) == sorted(names) and classes != list(names):
        wrong.append(
            f"{where} numbers its classes {', '.join(classes)}, and task.label_names has them as {', '.join(names)}: "
            "write them in the same order"
        )
    return wrong


def _default(listed: dict[str, dict[str, Any]]) -> str | None:
    """Return the configuration that is read when none is named."""
    marked = [name for name, entry in listed.items() if entry.get("default") is True]
    return next(iter(marked or ([*listed] if len(listed) == 1 else [n for n in listed if n == "default"])), None)


def _head(card: Path) -> dict[str, Any]:
    """Return the YAML between a README's first two lines of dashes; {} if it cannot be read for any reason."""
    try:
        if card.stat().st_size > LARGEST:
            return {}
        begin, *rest = card.read_text(encoding="utf-8").split("\n---", 1)
        if not (rest and begin.startswith("---")):
            return {}
        text, depth = begin.removeprefix("---"), 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST or isinstance(event, yaml.AliasEvent):  # aliases multiply, and no card has any
                return {}
        said = yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return said if isinstance(said, dict) else {}


def _entries(said: Any) -> list[dict[str, Any]]:
    return [entry for entry in said if isinstance(entry, dict)] if isinstance(said, list) else []


def _features(said: Any, config: str | None) -> list[dict[str, Any]]:
    """Return the columns of a configuration; [] if the card does not say."""
    infos = [said] if isinstance(said, dict) else _entries(said)
    fitting = [info for info in infos if info.get("config_name", config) in (config, config or "default")]
    return _entries(fitting[0].get("features")) if len(fitting) == 1 else []


def _classes(feature: dict[str, Any]) -> list[str]:
    """Return the names of a column's classes by id; [] if it has none."""
    kind = feature.get("dtype")
    names = (
        kind["class_label"].get("names")
        if isinstance(kind, dict) and isinstance(kind.get("class_label"), dict)
        else None
    )
    if not isinstance(names, dict):
        return []
    try:
        return [str(name) for _, name in sorted(names.items(), key=lambda item: int(item[0]))]
    except ValueError:
        return []
