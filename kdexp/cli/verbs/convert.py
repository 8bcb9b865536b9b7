"""``python -m kdexp convert SOURCE FOLDER``: safetensors of a model whose weights are pickled."""

from __future__ import annotations

from pathlib import Path

from kdexp.common.arguments import JSON, Command, Key, print_json
from kdexp.models import convert as models


def convert(source: str, folder: str, revision: str, json: bool) -> int:
    """Write the model to a new folder and say how it is used."""
    kind, colon, rest = source.partition(":")
    if colon and kind == "hub":
        place = models.fetch(rest, revision or None)
    else:
        place = Path(rest if colon and kind == "path" else source).expanduser()
    models.convert(place, Path(folder).expanduser())
    if json:
        print_json({"folder": folder, "word": f"teacher.source=path:{folder}"})
    else:
        print(f"{folder} holds the model with safetensors: teacher.source=path:{folder}")
    return 0


VERB = Command(
    "Write a model whose weights are pickled (pytorch_model.bin) to a new folder, with safetensors.",
    convert,
    {
        "source": Key("folder of the model, or hub:ID", bare=True),
        "folder": Key("the new folder", bare=True),
        "revision": Key("branch, tag or commit on the hub; empty: the newest", ""),
        "json": JSON,
    },
)
