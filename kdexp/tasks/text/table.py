"""Text classification and regression from local files or the hub: one YAML a data set, no code."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from kdexp.common import network
from kdexp.common.problems import ConfigError
from kdexp.config.schema import Text
from kdexp.tasks.text import files, hub, values
from kdexp.tasks.text.rows import Rows
from kdexp.tasks.text.sequence import SequenceTask

Names = Text | Annotated[list[Text], Field(min_length=1)]


@dataclass
class TextTask(SequenceTask):
    """One or two text columns, one label column.

    Where the files are looked for, in this order: ``folder``, ``partial``, the hub. ``folder`` lies below the data
    root (``data.root`` or KDEXP_DATA) unless it is absolute or begins with ``.`` or ``~``. The hub is never asked
    when a folder has all needed files.

    Attributes:
        columns: one or two text columns.
        label: the label column: class ids, class names, or scores.
        folder: folder of the files.
        files: split -> file name, or a list of names of which the first that exists is taken. ``train`` and
            ``validation`` are needed.
        optional: splits that may be missing.
        partial: folder of a subset or of another cut of the same data; what is read there is marked as such.
        hub: id of the data set on the hub, or null.
        hub_config: its configuration, or null.
        hub_revision: commit, branch or tag, or null for the newest.
        hub_commit: what that stands for; filled in.
        hub_splits: split -> the hub's name for it; null = the same names.
    """

    locations: ClassVar[tuple[str, ...]] = (
        "folder", "files", "optional", "partial", "hub", "hub_config", "hub_revision", "hub_commit",
        "hub_splits",
    )  # fmt: skip

    columns: list[str] = field(default_factory=list)
    label: Text = "label"
    folder: Text | None = None
    files: dict[str, Names] = field(default_factory=lambda: {s: f"{s}.parquet" for s in ("train", "validation")})
    optional: list[str] = field(default_factory=list)
    partial: Text | None = None
    hub: Text | None = None
    hub_config: Text | None = None
    hub_revision: Text | None = None
    hub_commit: Text | None = None
    hub_splits: dict[str, str] | None = None

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: naming what does not fit.
        """
        if not 1 <= len(self.columns) <= 2:
            raise ValueError(f"task.columns={list(self.columns)}: name one text column, or two")
        odd = [s for s in self.files if s not in ("train", "validation") and not s.startswith("validation_")]
        if odd:
            raise ValueError(f"task.files.{odd[0]}: splits are called train, validation and validation_*")
        lacking = [s for s in ("train", "validation") if s not in self.files or s in self.optional]
        if lacking:
            raise ValueError(f"task.files.{lacking[0]} is needed: name its file and do not list it in task.optional")
        if self.folder is None and self.hub is None:
            raise ValueError("task.folder and task.hub are both null: say where the data are (task.folder=./my_data)")
        super().__post_init__()

    # --- where the files are --------------------------------------------------------------------------------------

    def _base(self, folder: str, root: str | None) -> Path | None:
        """The folder as a path, or None when it lies below a root that is not set."""
        return files.place(folder, root)

    def _in(self, folder: str | None, root: str | None) -> tuple[dict[str, Path], list[str]]:
        """Files found in a folder by split, and descriptions of needed ones that are missing."""
        base = None if folder is None else self._base(folder, root)
        found: dict[str, Path] = {}
        missing: list[str] = []
        for split, names in self.files.items():
            names = [names] if isinstance(names, str) else list(names)
            path = None if base is None else next((base / n for n in names if (base / n).is_file()), None)
            if path is not None:
                found[split] = path
            elif split not in self.optional:
                missing.append(f"{base if base is not None else f'<data.root>/{folder}'}/{' or '.join(names)}")
        return found, missing

    def _local(self, root: str | None) -> tuple[dict[str, Path], bool] | None:
        """Local files by split and whether they are the partial set; None when no folder has all that are needed."""
        for folder, partial in ((self.folder, False), (self.partial, True)):
            if folder is not None:
                found, missing = self._in(folder, root)
                if not missing:
                    return found, partial
        return None

    def _files(self, root: str | None, cache: Path | None) -> dict[str, Path]:
        """Files by split, fetched from the hub where needed.

        Raises:
            ValueError: with the sentences of :meth:`problems`.
        """
        local = self._local(root)
        if local is not None:
            return local[0]
        wrong = self.problems(root)
        if wrong:
            raise ValueError(" ".join(wrong))
        assert self.hub is not None
        splits = self.hub_splits or {split: split for split in self.files}
        return hub.fetch(cache, self.hub, self.hub_config, self._pinned, splits, self.optional)

    @property
    def _pinned(self) -> str | None:
        """What is read of the hub's data set: a commit where one was filled in."""
        return self.hub_commit or self.hub_revision

    def shown_name(self, root: str | None) -> str:
        """``name``, with ``_partial`` appended when the partial set is what is read."""
        local = self._local(root)
        return f"{self.name}_partial" if local is not None and local[1] else self.name

    def note(self, root: str | None) -> str | None:
        """A warning for tables when the partial set is what is read."""
        local = self._local(root)
        if local is None or not local[1]:
            return None
        return f"read from {self.partial}: a subset or another cut of {self.name}; never compare with published scores"

    def problems(self, root: str | None) -> list[str]:
        """See :meth:`Task.problems`: missing root, files or columns, unknown formats, a hub that is switched off."""
        local = self._local(root)
        if local is not None:
            return [p for path in dict.fromkeys(local[0].values()) for p in self._column_problems(path)]
        off = hub.switched_off()
        if self.hub is not None and (off is None or self._cached()):
            return []
        if self.folder is None:
            return [f"task={self.name} reads task.hub={self.hub}, but the hub is switched off ({off}): unset it."]
        reads = f"task={self.name} reads {' and '.join(self._in(self.folder, root)[1])}"
        state = "data.root is unset" if self._base(self.folder, root) is None else "this is missing"
        below = self._base(self.folder, None) is None
        remedy = "set KDEXP_DATA or data.root=..." if below else "correct task.folder or task.files"
        if self.hub is None:
            return [f"{reads}; {state}: {remedy}."]
        switch = str(off).partition("=")[0]
        return [f"{reads}; {state} and the hub is switched off ({off}): {remedy}, or unset {switch}."]

    def _cached(self) -> bool:
        """Whether the cache may do without the hub: :meth:`pin` looks closer."""
        assert self.hub is not None
        known = network.remembered("dataset", self.hub, self.hub_commit or self.hub_revision).commit
        return known is not None or hub.in_library_cache(self.hub, self.hub_config, None)

    def pin(self, root: str | None, cache: Path, ask: bool) -> dict[str, Any]:
        """See :meth:`Task.pin`: the commit of the hub's data set, if that is what is read."""
        if self.hub is None or self._local(root) is not None:
            return {}
        return {"hub_commit": hub.commit(cache, self.hub, self.hub_config, self.hub_revision, ask)}

    def here(self, root: str | None, cache: Path) -> bool:
        """See :meth:`Task.here`: local files, or a data set of the hub that was fetched before."""
        if self.hub is None or self._local(root) is not None:
            return True
        return hub.fetched(cache, self.hub, self.hub_config, self._pinned)

    def _column_problems(self, path: Path) -> list[str]:
        try:
            present = files.header(path)
        except ValueError as error:
            return [f"task={self.name}: {error}."]
        where, out = f"task={self.name}: {path}", []
        for key, columns in (("columns", self.columns), ("label", [self.label])):
            missing = [c for c in columns if c not in present]
            if missing and files.separated_otherwise(path, present):
                return [f"{where} {files.separated_otherwise(path, present)}."]
            if missing:
                out.append(
                    f"{where} has no column {', '.join(missing)} (it has {', '.join(present)}): change task.{key}."
                )
        return out

    # --- rows -----------------------------------------------------------------------------------------------------

    def source_state(self, root: str | None, cache: Path | None) -> str:
        """Paths, sizes and times of the files, and the settings that decide what is read from them."""
        stats = {split: (path.resolve(), path.stat()) for split, path in self._files(root, cache).items()}
        found = {split: [str(path), stat.st_size, stat.st_mtime_ns] for split, (path, stat) in stats.items()}
        settings = [self.columns, self.label, self.kind, self.label_names]
        return hashlib.sha256(json.dumps([found, settings], sort_keys=True).encode()).hexdigest()

    def at_hand(self, root: str | None, cache: Path | None) -> bool:
        """Whether all files are here: in a folder, or fetched from the hub before."""
        return self._local(root) is not None or (cache is not None and self.here(root, cache))

    def rows(self, root: str | None, cache: Path | None) -> dict[str, Rows]:
        """All rows of all splits that exist.

        Raises:
            ValueError: files, columns, texts or labels that do not fit; names the row (of each file, the first).
        """
        out, wrong = {}, []
        for split, path in self._files(root, cache).items():
            try:
                out[split] = self._read(path)
            except ValueError as error:
                wrong.append(f"task={self.name}: {error}.")
        if wrong:
            raise ConfigError(wrong)
        return out

    def _read(self, path: Path) -> Rows:
        table = files.read(path, [*self.columns, self.label])
        if not table.columns[self.label]:
            raise ValueError(f"{path} has no rows")
        texts = [values.texts(table, column) for column in self.columns]
        if self.kind == "regression":
            labels = values.scores(table, self.label)
        else:
            labels = values.class_ids(table, self.label, self.label_names)
        return Rows(texts[0], texts[1] if len(texts) == 2 else None, labels)
