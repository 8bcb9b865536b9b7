"""What identifies a teacher's pretrained weights; imports nothing heavy."""

from __future__ import annotations

import hashlib
from typing import Any

from kdexp.common.files import checksum
from kdexp.config.resolve import source_folder

KINDS = (".safetensors", ".json", ".txt", ".model")


def origin(teacher: dict[str, Any]) -> str:
    """Return hub id and revision, or the content hash of a local folder (weights, configuration, tokenizer).

    Args:
        teacher: at least ``source``, ``revision`` and ``sha256``.

    Raises:
        ValueError: the weights are not the ones that ``teacher.sha256`` promises.
    """
    folder = source_folder(teacher["source"])
    if folder is None:
        return f"{teacher['source']}@{teacher['revision'] or 'main'}"
    total = hashlib.sha256()
    for path in sorted(p for p in folder.glob("*") if p.suffix in KINDS):
        content = checksum(path)
        if path.name == "model.safetensors" and teacher.get("sha256") not in (None, content):
            raise ValueError(
                f"teacher.sha256={teacher['sha256']} but {path} has {content}: it is not the expected file; reinstall "
                "it, or set teacher.sha256=null if you trust it."
            )
        total.update(f"{path.name}:{content}\n".encode())
    return f"sha256:{total.hexdigest()}"
