"""A student with weights of its own: any checkpoint, of any architecture, with its own tokenizer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from kdexp.inits.base import Init

KINDS = ("hub:", "path:", "package:")


@dataclass(frozen=True)
class Own(Init):
    """Nothing is copied from the teacher: the student *is* a checkpoint, as large as that is.

    Attributes:
        source: where it is: ``hub:OWNER/NAME``, ``path:FOLDER`` or ``package:NAME/FOLDER``, as a teacher's.
        revision: commit, branch or tag on the hub; None = the newest.
        commit: what that stands for; :mod:`kdexp.check.probes` fills it in.
        sha256: of its weights; None = not checked.
        family: of its architecture; None = read from its config.json.
        pooler: take its pooler, where it has one.
        head: take its head too; None = that of a language model, where it has one.
    """

    copies: ClassVar[bool] = False
    elsewhere: ClassVar[frozenset[str]] = frozenset({"source", "revision", "commit", "sha256", "family"})

    source: str = ""
    revision: str | None = None
    commit: str | None = None
    sha256: str | None = None
    family: str | None = None
    head: bool | None = None  # type: ignore[assignment]

    def layers(self, student_layers: int, teacher_layers: int) -> None:
        """Return None: no layer of the teacher is used."""
        return

    def problems(self) -> list[str]:
        """Say what is wrong with the settings themselves."""
        found = []
        if not self.source.startswith(KINDS):
            found.append(
                f"init.source={self.source}: init=own starts from a checkpoint: say where it is "
                "(init.source=hub:OWNER/NAME, path:FOLDER or package:NAME/FOLDER)."
            )
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            found.append(f"init.sha256={self.sha256!r}: must be 64 hex digits, or null.")
        return found
