"""The model card: what a student is, what it was made of, how well it does, what is not known of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdexp.delivery.export import Row
from kdexp.delivery.subject import Subject

PIPELINES = {
    "AutoModelForSequenceClassification": "text-classification",
    "AutoModelForTokenClassification": "token-classification",
    "AutoModelForImageClassification": "image-classification",
}
"""Transformers' classes of models -> the pipeline that runs them (version 5 has none for questions)."""
TAGS = PIPELINES | {"AutoModelForQuestionAnswering": "question-answering"}
"""The same -> the hub's name of their task."""


def text(subject: Subject, rows: Sequence[Row], table: Sequence[str]) -> str:
    """Return README.md for the folder of a student.

    Args:
        subject: the student.
        rows: of the table; the student's plain form gives its score.
        table: the table's lines.
    """
    task, head = subject.task, subject.task.head
    plain = next(row for row in rows if row.who == subject.who and row.form == "pytorch")
    pipeline = PIPELINES.get(head.auto_class)
    cut = ", truncation=True" if pipeline == "text-classification" else ""
    kind, tags = head.name, "kdexp"
    if subject.result:
        kind, tags = f"distilled {kind}", "knowledge-distillation, kdexp"
    front = ["---", "library_name: transformers", f"tags: [{tags}]"]
    front += [f"pipeline_tag: {TAGS[head.auto_class]}"] if head.auto_class in TAGS else []
    made = (
        [*_made(subject.result), *_command(subject)]
        if subject.result
        else ["Not made by a run that kdexp knows: its origin is unknown."]
    )
    call = f'ask = pipeline("{pipeline}", model="pytorch"{cut})'
    use = (
        ["```python", "from transformers import pipeline", "", call, "```"]
        if pipeline
        else [f"Load it with transformers' `{head.auto_class}`."]
    )
    names = head.label_names
    return "\n".join(
        [
            *front, "---", "", f"# {subject.name}: a {kind} model", "", *made, "", "## How well", "",
            f"{task.metric} {100 * plain.score:.1f} (95 % interval over new examples {100 * plain.low:.1f} to "
            f"{100 * plain.high:.1f}) on the validation split of {subject.name}.", "", *table, "",
            "## How to use it", "", *use, "",
            *([f"Classes: {', '.join(names)}.", ""] if names else []), "## Limits", "",
            "- It was judged on the validation split alone; other kinds of texts, languages, times were not.",
            "- What its teacher gets wrong or has learned of people, it may repeat.",
            "- The licence of the teacher and of the data holds for it too. Licence of the teacher: "
            f"{_licence(subject.result)}.",
        ]
    ) + "\n"  # fmt: skip


def _made(result: Mapping[str, Any]) -> list[str]:
    labels, science = result["labels"], result["science"]
    rows = (result["task"].get("rows") or {}).get("train", "?")
    return [
        f"- Teacher: {labels['teacher']} ({science['teacher']['source']})",
        f"- Student: {labels['student']}, {result['student']['parameters']:,} parameters in "
        f"{result['student']['layers']} layers of width {result['student']['hidden_size']}",
        f"- Objective {labels['objective']}, init {labels['init']}, mapping {labels['mapping']}, seed "
        f"{result['run']['seed']}",
        f"- Data: {labels['task']}, {rows} training rows (content {str(result['task']['data_hash'])[:12]})",
        f"- Run: {result['run']['name']} of study {result['run']['study']}, kdexp "
        f"{result['runtime']['versions'].get('kdexp', '?')}, {result['finished'][:10]}",
    ]


def _licence(result: Mapping[str, Any] | None) -> str:
    """Return what the teacher's own card says, where it lies beside it; else where to look."""
    source = str(result["science"]["teacher"]["source"]) if result else ""
    kind, _, place = source.partition(":")
    path = Path(place).expanduser() / "README.md"
    if kind == "path" and path.is_file():
        front = re.match(r"---\n(.*?)\n---", path.read_text(errors="replace"), re.DOTALL)
        said = re.search(r"^licen[sc]e:\s*(\S.*)$", front[1], re.MULTILINE) if front else None
        if said:
            return f"{said[1].strip()} (as its card says)"
    return f"see the card of {source}" if source else "unknown"


def _command(subject: Subject) -> list[str]:
    """Return the command that made the study of a student's run, as its record has it."""
    path = subject.result and Path(str(subject.result["run"]["folder"])).parent / "study.json"
    if not path or not path.is_file():
        return []
    said = json.loads(path.read_text()).get("command")
    return [f"- Command: `{said}`"] if said else []
