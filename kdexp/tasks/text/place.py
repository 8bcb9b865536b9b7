"""Where a task's files are: a folder, a subset's folder, or the hub; what is wrong with them before they are read."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from kdexp.common import network
from kdexp.config.schema import Text
from kdexp.tasks.base import Task
from kdexp.tasks.text import card, encoding, files, hub

_FURTHER: dict[str, dict[str, Any]] = {}
"""What this process knows of rows without labels, by the state of their files and of all others."""

Names = Text | Annotated[list[Text], Field(min_length=1)]


@dataclass
class Located(Task):
    """A task whose rows lie in a file a split.

    Where the files are looked for, in this order: ``folder``, ``partial``, the hub. ``folder`` lies below the data
    root (``data.root`` or KDEXP_DATA) unless it is absolute or begins with ``.`` or ``~``. The hub is never asked
    when a folder has all needed files.

    Attributes:
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
        unlabelled: a file, or a folder of files, of further training rows; what is right of them the teacher says.
            Placed as ``folder`` is. With it ``train`` may be missing (``optional``), or all labels (``folder`` and
            ``hub`` null).
    """

    locations: ClassVar[tuple[str, ...]] = (
        "folder", "files", "optional", "partial", "hub", "hub_config", "hub_revision", "hub_commit",
        "hub_splits", "unlabelled",
    )  # fmt: skip

    folder: Text | None = None
    files: dict[str, Names] = field(default_factory=lambda: {s: f"{s}.parquet" for s in ("train", "validation")})
    optional: list[str] = field(default_factory=list)
    partial: Text | None = None
    hub: Text | None = None
    hub_config: Text | None = None
    hub_revision: Text | None = None
    hub_commit: Text | None = None
    hub_splits: dict[str, str] | None = None
    unlabelled: Text | None = None

    @abstractmethod
    def columns_asked(self, labelled: bool = True) -> Mapping[str, list[str]]:
        """Return the columns that a file must have, by the setting that names them.

        Args:
            labelled: False: of rows whose labels are not looked at.
        """

    def classes_asked(self) -> tuple[list[str], str]:
        """Return the names of the classes by id and the column that holds them; nothing where no column does."""
        return [], ""

    def check_places(self) -> None:
        """Check the settings above.

        Raises:
            ValueError: naming what does not fit.
        """
        odd = [s for s in self.files if s not in ("train", "validation") and not s.startswith("validation_")]
        if odd:
            raise ValueError(f"task.files.{odd[0]}: splits are called train, validation and validation_*")
        spared = {"train"} if self.unlabelled is not None else set()
        lacking = [s for s in ("train", "validation") if s not in self.files or s in {*self.optional} - spared]
        if lacking:
            raise ValueError(f"task.files.{lacking[0]} is needed: name its file and do not list it in task.optional")
        if self.folder is None and self.hub is None and self.unlabelled is None:
            raise ValueError("task.folder and task.hub are both null: say where the data are (task.folder=./my_data)")

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
        if self.folder is None and self.hub is None:  # there are rows without labels alone
            return {}, False
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

    def marks(self, root: str | None) -> list[tuple[str, str]]:
        """See :meth:`Task.marks`: the partial set is what is read."""
        local, marks = self._local(root), super().marks(root)
        if local is not None and local[1]:
            marks = [("partial", f"read from {self.partial}: a subset or another cut of {self.name}"), *marks]
        if local is not None and "validation" not in local[0]:
            said = "no file has labels: scores are agreement with the teacher on rows that were set aside"
            marks = [("agreement", said), *marks]
        return marks

    def problems(self, root: str | None) -> list[str]:
        """See :meth:`Task.problems`: missing root, files or columns, unknown formats, a hub that is switched off."""
        return self._labelled_problems(root) + self._unlabelled_problems(root)

    def _labelled_problems(self, root: str | None) -> list[str]:
        local = self._local(root)
        if local is not None and self.without_labels and "train" in local[0]:
            return [
                f"task.optional={self.optional} says that no training row has a label, and {local[0]['train']} is "
                "there: drop train from task.optional, or name another task.folder."
            ]
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
        commit = hub.commit(cache, self.hub, self.hub_config, self.hub_revision, ask)
        wrong = [] if commit is None else self._promised(commit)
        if wrong:
            raise ValueError("; ".join(wrong))
        return {"hub_commit": commit}

    def _promised(self, commit: str) -> list[str]:
        """Say what the card of the hub's data set does not promise, where it is at hand."""
        assert self.hub is not None
        named = self.hub_splits or {split: split for split in self.files}
        splits = [theirs for ours, theirs in named.items() if ours not in self.optional]
        place = network.folder("dataset", self.hub, commit) / "README.md"
        columns = [column for columns in self.columns_asked().values() for column in columns]
        return card.problems(place, self.hub, self.hub_config, splits, columns, *self.classes_asked())

    def here(self, root: str | None, cache: Path) -> bool:
        """See :meth:`Task.here`: local files, or a data set of the hub that was fetched before."""
        if self.hub is None or self._local(root) is not None:
            return True
        return hub.fetched(cache, self.hub, self.hub_config, self._pinned)

    def _column_problems(self, path: Path, labelled: bool = True) -> list[str]:
        try:
            present = files.header(path)
        except ValueError as error:
            return [f"task={self.name}: {error}."]
        where, out = f"task={self.name}: {path}", []
        for key, columns in self.columns_asked(labelled).items():
            missing = [c for c in columns if c not in present]
            if missing and files.separated_otherwise(path, present):
                return [f"{where} {files.separated_otherwise(path, present)}."]
            if missing:
                out.append(
                    f"{where} has no column {', '.join(missing)} (it has {', '.join(present)}): change task.{key}."
                )
        return out

    def at_hand(self, root: str | None, cache: Path | None) -> bool:
        """Whether all files are here: in a folder, or fetched from the hub before."""
        return self._local(root) is not None or (cache is not None and self.here(root, cache))

    def file_state(self, root: str | None, cache: Path | None) -> dict[str, list[Any]]:
        """Path, size and time of every file by split: what changes when the rows might. Costs milliseconds."""
        stats = {split: (path.resolve(), path.stat()) for split, path in self._files(root, cache).items()}
        return {split: [str(path), stat.st_size, stat.st_mtime_ns] for split, (path, stat) in stats.items()}

    def other_file(self, split: str, root: str | None, cache: Path | None) -> Path:
        """Return the file of a split that nobody trains on, such as ``test``: beside the others, or of the hub.

        Raises:
            ValueError: there is none; names the splits that there are.
        """
        names = self.files.get(split, [f"{split}{ending}" for ending in files.FORMATS])
        bases = [base for folder in (self.folder, self.partial) if folder and (base := self._base(folder, root))]
        places = [base / name for base in bases for name in ([names] if isinstance(names, str) else names)]
        path = next((place for place in places if place.is_file()), None)
        if path is not None:
            return path
        off = hub.switched_off()
        if self.hub is not None and (off is None or hub.fetched(cache, self.hub, self.hub_config, self._pinned)):
            wanted = (self.hub_splits or {}).get(split, split)
            return hub.fetch(cache, self.hub, self.hub_config, self._pinned, {split: wanted}, [])[split]
        there = sorted({path.stem for base in bases for path in base.glob("*") if path.suffix in files.FORMATS})
        shown = " or ".join(str(base) for base in bases) or "<data.root>"
        hidden = f", and the hub is switched off ({off})" if self.hub is not None and off else ""
        raise ValueError(
            f"task={self.name} has no split {split} in {shown} (there is {', '.join(there) or 'nothing'}){hidden}: "
            "say split=..., or name the file with data=FILE"
        )

    # --- rows without labels --------------------------------------------------------------------------------------

    def unlabelled_rows(self, root: str | None) -> Any:
        """Read the rows of :attr:`unlabelled`, whose labels are not looked at.

        Raises:
            ValueError: a row that cannot be used, with its place.
        """
        raise ValueError(f"task={self.name} learns from labelled rows only")

    def asked(self, rows: Any) -> list[Any]:
        """Return what a model is asked of each row, without its label, to find the same row again."""
        raise NotImplementedError

    def labelled_rows(self, root: str | None, cache: Path | None) -> Mapping[str, Any]:
        """Return the rows of all files that have labels, by split."""
        raise NotImplementedError

    def unlabelled_files(self, root: str | None) -> list[Path]:
        """Return the files of :attr:`unlabelled` in order of their names; [] where there are none."""
        path = None if self.unlabelled is None else files.place(self.unlabelled, root)
        if path is None or path.is_file():
            return [] if path is None else [path]
        return sorted(p for p in path.glob("*") if p.suffix in files.FORMATS and p.is_file())

    def _unlabelled_problems(self, root: str | None) -> list[str]:
        if self.unlabelled is None:
            return []
        if type(self).unlabelled_rows is Located.unlabelled_rows:
            return [f"task.unlabelled={self.unlabelled}: task={self.name} learns from labelled rows only; use null."]
        where, found = files.place(self.unlabelled, root), self.unlabelled_files(root)
        said, known = f"task.unlabelled={self.unlabelled}", ", ".join(files.FORMATS)
        if where is None:
            return [f"{said} lies below data.root, which is unset: set KDEXP_DATA, or begin it with ./"]
        if not found:
            return [f"{said}: {where} is neither a file nor a folder with files {known}."]
        return [text for path in found for text in self._column_problems(path, labelled=False)]

    def unlabelled_state(self, root: str | None) -> list[Any]:
        """Return path, size and time of the files of :attr:`unlabelled`."""
        stats = [(path.resolve(), path.stat()) for path in self.unlabelled_files(root)]
        return [[str(path), stat.st_size, stat.st_mtime_ns] for path, stat in stats]

    def further(self, root: str | None, cache: Path | None = None) -> str | None:
        """See :meth:`Task.further`."""
        return str(self._counted_further(root, cache)["sha256"]) if self.has_further else None

    @property
    def has_further(self) -> bool:
        """See :meth:`Task.has_further`."""
        return self.unlabelled is not None and not self.without_labels

    @property
    def without_labels(self) -> bool:
        """No training row has a label: the teacher says what is right of all of them."""
        return self.unlabelled is not None and ("train" in self.optional or (self.folder, self.hub) == (None, None))

    def _counted_further(self, root: str | None, cache: Path | None, keep: bool = True) -> dict[str, Any]:
        """What is remembered of rows without labels: ``sha256``, ``rows``, and how many stand in each other split.

        Args:
            keep: False: write nothing.
        """

        def look() -> dict[str, Any]:
            rows = self.unlabelled_rows(root)
            given, again = self.asked(rows), {}
            for name, split in self.labelled_rows(root, cache).items():
                known = set(self.asked(split))
                again[name] = sum(one in known for one in given)
            return {"sha256": rows.digest(), "rows": len(rows), "again": again}

        known = json.dumps([self.file_state(root, cache), self.unlabelled_state(root), repr(self)], sort_keys=True)
        if known not in _FURTHER:
            _FURTHER[known] = encoding.remember(cache if keep else None, "fingerprints", known, look)
        return _FURTHER[known]

    def unlabelled_record(self, root: str | None, cache: Path | None) -> list[str]:
        """Return lines for the log about rows without labels: how many, which others they repeat, what is ignored."""
        if self.unlabelled is None:
            return []
        known, task = self._counted_further(root, cache), f"task {self.name}:"
        lines = [f"{task} unlabelled has {known['rows']} rows, labelled by the teacher"]
        lines += [
            f"{task} {count} of the unlabelled rows are in {name} too"
            + (" (or in what is held out of it)" if name == "train" else ": no clean score; leave them out")
            for name, count in known["again"].items()
            if count
        ]
        labels = {c for cs in self.columns_asked().values() for c in cs}
        labels -= {c for cs in self.columns_asked(labelled=False).values() for c in cs}
        for path in self.unlabelled_files(root):
            ignored = sorted(labels & set(files.header(path)))
            if ignored:
                lines.append(f"{task} {path} has the column {', '.join(ignored)}, which is not looked at")
        return lines
