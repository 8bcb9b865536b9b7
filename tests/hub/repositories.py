"""What the stand-in hub holds: repositories with commits, branches, tags and pull requests. Nothing here is HTTP."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

LARGE = (".safetensors", ".bin", ".h5", ".ot", ".msgpack", ".parquet", ".model", ".onnx")
"""Suffixes of the files that the hub keeps in its large-file storage, as its default .gitattributes has them."""

CONVERSION = "Adding `safetensors` variant of this model"
CONVERTER = "SFconvertbot"
"""Title and author of the pull request by which the hub's robot offers safetensors beside a pickled checkpoint."""


@dataclass(frozen=True)
class Blob:
    """One version of one file.

    Attributes:
        source: the content, or the path of a file that must not change any more.
        size: bytes.
        git_id: the id that git gives the content: the ETag of a small file.
        sha256: the ETag of a large one.
    """

    source: bytes | Path
    size: int
    git_id: str
    sha256: str

    @classmethod
    def of(cls, source: bytes | Path) -> Blob:
        """Measure a content."""
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        git, sha = hashlib.sha1(b"blob %d\0" % size), hashlib.sha256()
        for piece in _pieces(source, 0, size):
            git.update(piece)
            sha.update(piece)
        return cls(source, size, git.hexdigest(), sha.hexdigest())

    def pieces(self, start: int, stop: int, length: int = 1 << 20) -> Iterator[bytes]:
        """Yield the bytes from ``start`` to before ``stop``, at most ``length`` at a time."""
        return _pieces(self.source, start, stop, length)


def _pieces(source: bytes | Path, start: int, stop: int, length: int = 1 << 20) -> Iterator[bytes]:
    if isinstance(source, bytes):
        for at in range(start, stop, length):
            yield source[at : min(at + length, stop)]
        return
    with source.open("rb") as file:
        file.seek(start)
        while start < stop and (piece := file.read(min(length, stop - start))):
            start += len(piece)
            yield piece


@dataclass(frozen=True)
class Commit:
    """One state of a repository.

    Attributes:
        sha: 40 hexadecimal digits that depend on the content and the history.
        parent: sha of the commit before, or None.
        title: first line of its message.
        author: who made it.
        files: path in the repository -> content.
    """

    sha: str
    parent: str | None
    title: str
    author: str
    files: Mapping[str, Blob]


@dataclass
class Repository:
    """A model or a data set on the hub.

    Attributes:
        id: ``owner/name``.
        kind: ``model`` or ``dataset``.
        private: only ``readers`` see that it exists.
        gated: only ``readers`` get its files; that it exists is public.
        readers: tokens that may read a private or gated repository.
        commits: by sha.
        refs: ``refs/heads/NAME``, ``refs/tags/NAME`` and ``refs/pr/NUMBER`` -> sha.
        requests: title and author of each pull request, by number.
    """

    id: str
    kind: str = "model"
    private: bool = False
    gated: bool = False
    readers: set[str] = field(default_factory=set)
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    requests: dict[int, tuple[str, str]] = field(default_factory=dict)

    def commit(
        self,
        files: Mapping[str, bytes | str | Path],
        ref: str = "refs/heads/main",
        title: str = "Upload files",
        author: str = "owner",
    ) -> str:
        """Add or replace files on a branch and return the new commit's sha."""
        parent = self.refs.get(ref)
        blobs = dict(self.commits[parent].files) if parent else {}
        for path, content in files.items():
            blobs[path] = Blob.of(content.encode() if isinstance(content, str) else content)
        state = [self.kind, self.id, parent, title, sorted((path, blob.sha256) for path, blob in blobs.items())]
        sha = hashlib.sha1(json.dumps(state).encode()).hexdigest()
        self.commits[sha] = Commit(sha, parent, title, author, blobs)
        self.refs[ref] = sha
        return sha

    def commit_folder(self, folder: Path, title: str = "Upload folder") -> str:
        """Add all files below a folder to the main branch and return the new commit's sha."""
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        return self.commit({path.relative_to(folder).as_posix(): path for path in paths}, title=title)

    def tag(self, name: str, revision: str = "main") -> None:
        """Give a commit a second name that stays."""
        self.refs[f"refs/tags/{name}"] = self.at(revision).sha

    def branch(self, name: str, revision: str = "main") -> None:
        """Begin a branch; :meth:`commit` with ``ref="refs/heads/NAME"`` goes on with it."""
        self.refs[f"refs/heads/{name}"] = self.at(revision).sha

    def propose(self, files: Mapping[str, bytes | str | Path], title: str = CONVERSION, author: str = CONVERTER) -> int:
        """Open a pull request on top of the main branch and return its number."""
        number = len(self.requests) + 1
        self.requests[number] = (title, author)
        self.refs[f"refs/pr/{number}"] = self.at("main").sha
        self.commit(files, ref=f"refs/pr/{number}", title=title, author=author)
        return number

    def at(self, revision: str) -> Commit:
        """Return the commit that a branch, a tag, a full reference or a sha (seven digits at least) names.

        Raises:
            KeyError: there is none.
        """
        for ref in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision):
            if ref in self.refs:
                return self.commits[self.refs[ref]]
        same = [sha for sha in self.commits if sha.startswith(revision)]
        if re.fullmatch("[0-9a-f]{7,40}", revision) and len(same) == 1:
            return self.commits[same[0]]
        raise KeyError(revision)

    def history(self, revision: str) -> list[Commit]:
        """Return a commit and those before it, newest first."""
        commit: Commit | None = self.at(revision)
        line = []
        while commit is not None:
            line.append(commit)
            commit = self.commits[commit.parent] if commit.parent else None
        return line


def is_large(path: str) -> bool:
    """Whether the hub keeps a file in its large-file storage, and so on another host."""
    return path.endswith(LARGE)
