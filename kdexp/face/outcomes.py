"""What a call leaves behind: a run, an export."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdexp.common import results
from kdexp.common.status import state

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Run:
    """One run, by its folder: what :func:`kdexp.distill` returns, and what a study is made of.

    Attributes:
        folder: ``multirun/STUDY/NAME``.
    """

    folder: Path

    def __post_init__(self) -> None:
        """Take a text for a path."""
        object.__setattr__(self, "folder", Path(self.folder).absolute())

    @property
    def state(self) -> str:
        """``new``, ``running``, ``finished``, ``failed``, ``interrupted`` or ``damaged``."""
        return state(self.folder)

    @property
    def result(self) -> dict[str, Any]:
        """Everything that the run found out: its ``result.json``.

        Raises:
            ValueError: it is not finished.
        """
        read = results.read(self.folder)
        if read is None:
            raise ValueError(f"{self.folder} has no result: the run is {self.state}; the same call carries it out.")
        return read

    @property
    def score(self) -> float | None:
        """The task's metric on validation, a fraction; None = the objective trains no head that could be scored."""
        told = results.score(self.result)
        return None if told is None else told[1]

    @property
    def student(self) -> Path | None:
        """The folder of the student: weights, configuration, tokenizer; None = ``runtime.keep_weights=none``."""
        kept = self.result["student"]["weights"]
        return None if kept is None else Path(kept).absolute()

    def __repr__(self) -> str:
        """Say how it did, and where it is."""
        if self.state != "finished":
            return f"Run {self.folder.name}: {self.state}\n  folder   {self.folder}"
        result, told = self.result, results.score(self.result)
        how = "not scored" if told is None else f"{told[0]} {told[1]:.3f} on validation"
        sides = {"teacher": (result["teacher"] or {}).get("scores"), "majority": result["task"].get("majority")}
        known = {
            who: (scores or {}).get("validation", {}).get(result["task"]["metric"]) for who, scores in sides.items()
        }
        beside = ", ".join(f"{who} {value:.3f}" for who, value in known.items() if value is not None)
        lines = [f"Run {result['run']['name']}: {how}{f' ({beside})' if beside and told else ''}"]
        lines += [f"  folder   {self.folder}", f"  student  {self.student or 'not kept (runtime.keep_weights=none)'}"]
        return "\n".join(lines)


@dataclass(frozen=True)
class Export:
    """A student in several forms: what :func:`kdexp.export` returns.

    Attributes:
        folder: it holds a folder a form, the card and the table.
    """

    folder: Path

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row a form: its score with an interval (fractions), times, sizes; ``failed`` says why there is none."""
        import pandas as pd

        return pd.read_csv(self.folder / "table.csv", keep_default_na=True)

    def __repr__(self) -> str:
        """Show the table as it is in the card."""
        return f"Export {self.folder}\n\n{(self.folder / 'table.md').read_text()}"

    def _repr_markdown_(self) -> str:
        return (self.folder / "table.md").read_text()
