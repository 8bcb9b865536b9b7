"""Images that the teacher of a run got right and its student wrong, for the report of a study on images.

What both answered is in the files that they kept, the pixels in the cache beside the store that the run used. Where one
of them is not on this machine, the section says so.
"""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment

from kdexp.common.redact import one_line

from . import predictions
from .collect import Collected

SHOWN = 12
"""Images a run."""
SIDE = 64
"""Largest side of a thumbnail that is kept, in pixels."""

TEMPLATE = """<section id="pictures"><h2>Images</h2>
<p>Validation images that the teacher got right and the student wrong, the teacher's surest first; of each objective,
the run of the lowest seed. Below an image: its class, and what the student said.</p>
{% for task, rows in tasks %}<h3>{{ task }}</h3>
{% for row in rows %}<p><strong>{{ row.objective }}</strong>: {{ row.said }}</p>
{% if row.images %}<ul class="pictures">{% for one in row.images %}<li><img src="{{ one.source }}" \
alt="{{ one.label }}" width="64" height="64"><span>{{ one.label }}</span> <em>{{ one.answer }}</em></li>\
{% endfor %}</ul>{% endif %}
{% endfor %}{% endfor %}
<style>.pictures { list-style: none; display: flex; flex-wrap: wrap; gap: .5rem; padding: 0; }
.pictures li { width: 6.4rem; font-size: .78rem; line-height: 1.25; overflow-wrap: anywhere; }
.pictures img { display: block; image-rendering: pixelated; } .pictures em { color: var(--no); display: block; }</style>
</section>
"""


@dataclass(frozen=True)
class Row:
    """One run of the section."""

    objective: str
    said: str
    images: list[dict[str, str]]


def section(found: Collected) -> str:
    """The section as HTML; '' for a study without images."""
    tasks: dict[str, list[Row]] = {}
    chosen = found.runs.sort_values("seed").groupby(["task", "objective"], sort=False).head(1)
    for run in chosen.itertuples(index=False):
        result = _result(found.folder / run.name)
        pixels = ((result.get("task") or {}).get("pixels") or {}).get("validation")
        if pixels and result.get("teacher"):
            tasks.setdefault(run.task, []).append(_row(run.objective, found.folder / run.name, result, Path(pixels)))
    if not tasks:
        return ""
    environment = Environment(autoescape=True, finalize=lambda value: one_line(value) if type(value) is str else value)
    return environment.from_string(TEMPLATE).render(tasks=list(tasks.items()))


def _result(folder: Path) -> dict[str, Any]:
    path = folder / "result.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def _row(objective: str, folder: Path, result: dict[str, Any], pixels: Path) -> Row:
    """Compare a run with its teacher, whose stage lies in the store that the cache of pixels is in."""
    store = pixels.parents[2]
    try:
        student = predictions.read(folder)
        teacher = predictions.read(store / result["teacher"]["key"])
        values = np.load(pixels / "pixels.npy", mmap_mode="r")
        rows = scored(result, len(values))
    except (OSError, ValueError) as error:
        return Row(objective, f"its images cannot be shown: {one_line(str(error))}", [])
    if not np.array_equal(student.ids, teacher.ids) or student.ids.max() >= len(rows):
        return Row(objective, "its images cannot be shown: teacher, student and pixels are of different examples", [])
    labels = student.labels.astype(np.int64)
    right, answered = teacher.logits.argmax(1) == labels, student.logits.argmax(1)
    lost, gained = right & (answered != labels), ~right & (answered == labels)
    said = (
        f"of {len(labels):,} images {lost.sum():,} that the teacher got right, and {gained.sum():,} the other way round"
    )
    sure = teacher.logits - np.log(np.exp(teacher.logits - teacher.logits.max(1, keepdims=True)).sum(1, keepdims=True))
    sure = (sure - teacher.logits.max(1, keepdims=True))[np.arange(len(labels)), labels]
    first = np.flatnonzero(lost)[np.argsort(-sure[lost], kind="stable")[:SHOWN]]
    names = result["science"]["task"]["label_names"]
    images = [
        {"source": thumbnail(values[rows[student.ids[i]]]), "label": names[labels[i]], "answer": names[answered[i]]}
        for i in first
    ]
    return Row(objective, said, images)


def scored(result: dict[str, Any], count: int) -> np.ndarray:
    """Which of ``count`` images a run was scored on, in its order: all, or what ``task.limit_validation`` chose."""
    rows = (result["task"].get("pixel_rows") or {}).get("validation")
    return np.arange(count) if rows is None else np.array(rows, dtype=np.int64)


def thumbnail(values: np.ndarray) -> str:
    """An image (S, S, 3) as an address that holds it."""
    from PIL import Image

    picture = Image.fromarray(np.asarray(values))
    picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
