"""What the stand-in hub answers: information, listings, and the way to each file.

It follows what huggingface_hub 2.4, transformers 5.23 and datasets 5.2 read: the headers X-Repo-Commit, ETag,
X-Linked-ETag, X-Linked-Size, X-Error-Code and Link, and the fields of each listing.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.hub import uploads
from tests.hub.repositories import Blob, Commit, Repository, is_large
from tests.hub.transport import Handler

KINDS = {"models": "model", "datasets": "dataset"}
VERBS = ("revision", "tree", "paths-info", "refs", "commits", "discussions", "preupload", "commit")
DATE = "2024-01-01T00:00:00.000Z"


class StorageHandler(Handler):
    """The host of large files: the address is the permission, and a token beside it is refused."""

    def handle_path(self) -> None:
        if self.headers.get("Authorization"):
            self.error(400, None, "Only one auth mechanism allowed")
            return
        if self.command == "PUT":
            uploads.store(self)
            return
        blob = self.server.hub.blob(urlsplit(self.path).path.removeprefix("/blobs/"))
        if blob is None:
            self.error(404, None, "NoSuchKey")
            return
        self.file(blob, {"ETag": f'"{blob.sha256}"', "Content-Type": "application/octet-stream"})


class HubHandler(Handler):
    """The hub itself: information, listings, and the way to each file."""

    def handle_path(self) -> None:
        address = urlsplit(self.path)
        self.query = parse_qs(address.query)
        path = address.path.strip("/")
        if uploads.answered(self, path):
            return
        if path.startswith("api/resolve-cache/"):
            kind, rest = path.removeprefix("api/resolve-cache/").split("/", 1)
            id, _, rest = self._split(rest)
            sha, _, name = rest.partition("/")
            self._resolved(kind, id, sha, unquote(name))
        elif path.startswith(("api/models/", "api/datasets/")):
            kind, rest = path.removeprefix("api/").split("/", 1)
            id, verb, rest = self._split(rest)
            self._api(kind, id, verb, rest)
        elif "/resolve/" in path:
            id, _, rest = path.partition("/resolve/")
            kind = "datasets" if id.startswith("datasets/") else "models"
            revision, _, name = rest.partition("/")
            self._resolve(kind, id.removeprefix("datasets/"), unquote(revision), unquote(name))
        else:
            self.error(404, None, "Not Found")

    def _split(self, path: str) -> tuple[str, str, str]:
        """Split ``owner/name/verb/rest`` or ``name/verb/rest``."""
        parts = path.split("/")
        id = "/".join(parts[:1] if len(parts) > 1 and parts[1] in VERBS else parts[:2])
        rest = path.removeprefix(id).strip("/")
        verb, _, below = rest.partition("/")
        return (id, verb, below) if verb in VERBS else (id, "", rest)

    def _repository(self, kind: str, id: str, files: bool) -> Repository | None:
        """Return a repository that the asker may see; None when the refusal has been sent."""
        hub, token = self.server.hub, (self.headers.get("Authorization") or "").removeprefix("Bearer ").strip()
        if id in hub.aliases:
            target = self.path.replace(id, hub.aliases[id], 1)
            self.head(307, {"Location": target, "Content-Length": 0})
            return None
        repository = hub.repositories.get((KINDS[kind], id))
        if token and token not in hub.tokens:
            self.error(401, None, "Invalid credentials in Authorization header")
        elif repository is None or (repository.private and token not in repository.readers):
            self.error(404 if token else 401, "RepoNotFound", "Repository not found")
        elif files and repository.gated and token not in repository.readers:
            way = "ask for access" if token else "you must have access to it and be authenticated"
            self.error(403 if token else 401, "GatedRepo", f"Access to {KINDS[kind]} {id} is restricted: {way}.")
        else:
            return repository
        return None

    def _commit(self, repository: Repository, revision: str) -> Commit | None:
        try:
            return repository.at(revision)
        except KeyError:
            self.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None

    # --- files ------------------------------------------------------------------------------------------------------

    def _blob(self, kind: str, id: str, revision: str, name: str) -> tuple[Commit, Blob] | None:
        """Return a file and the commit it is taken from; None when the refusal has been sent."""
        repository = self._repository(kind, id, files=True)
        commit = self._commit(repository, revision) if repository else None
        if commit is None:
            return None
        if name not in commit.files:
            self.error(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit.sha})
            return None
        return commit, commit.files[name]

    def _resolve(self, kind: str, id: str, revision: str, name: str) -> None:
        """Send the way to a file: large ones are on another host, small ones at an address of their own."""
        at = self._blob(kind, id, revision, name)
        if at is None:
            return
        commit, blob = at
        etag = blob.sha256 if is_large(name) else blob.git_id
        headers = {"X-Repo-Commit": commit.sha, "X-Linked-ETag": f'"{etag}"', "X-Linked-Size": str(blob.size)}
        if is_large(name):
            location = f"{self.server.hub.storage}/blobs/{blob.sha256}"
        else:
            location = f"/api/resolve-cache/{kind}/{id}/{commit.sha}/{quote(name, safe='')}"
        self.head(302 if is_large(name) else 307, {**headers, "Location": location, "Content-Length": 0})

    def _resolved(self, kind: str, id: str, sha: str, name: str) -> None:
        """Send a small file."""
        at = self._blob(kind, id, sha, name)
        if at is None:
            return
        commit, blob = at
        leaf = name.rpartition("/")[2]
        headers = {"ETag": f'"{blob.git_id}"', "X-Repo-Commit": commit.sha, "Content-Type": "text/plain; charset=utf-8"}
        self.squeezed(blob, {**headers, "Content-Disposition": f'inline; filename="{leaf}";'})

    # --- information ------------------------------------------------------------------------------------------------

    def _api(self, kind: str, id: str, verb: str, rest: str) -> None:
        repository = self._repository(kind, id, files=verb not in ("", "revision"))
        if repository is None:
            return
        if verb in ("preupload", "commit"):
            uploads.modes(self) if verb == "preupload" else uploads.commit(self, repository)
            return
        if verb in ("refs", "discussions"):
            self.json(_refs(repository) if verb == "refs" else _discussions(repository))
            return
        revision, _, path = rest.partition("/")
        commit = self._commit(repository, unquote(revision) or "main")
        if commit is None:
            return
        if verb == "tree":
            self._tree(commit, unquote(path))
        elif verb == "paths-info":
            asked = self.form.get("paths", [])
            self.json([_entry(p, commit.files[p]) for p in asked if p in commit.files])
        elif verb == "commits":
            line = repository.history(commit.sha)
            self.json([_told(earlier) for earlier in line])
        else:
            self.json(_information(repository, commit, blobs=self.query.get("blobs") == ["true"]))

    def _tree(self, commit: Commit, folder: str) -> None:
        """Send the entries below a folder, a page at a time; the address of the next page is in a header."""
        prefix = f"{folder}/" if folder else ""
        files = {path: blob for path, blob in sorted(commit.files.items()) if path.startswith(prefix)}
        if folder and not files:
            self.error(404, "EntryNotFound", f'{folder} does not exist on "{commit.sha}"')
            return
        deep = self.query.get("recursive", ["false"])[0].lower() == "true"
        entries: dict[str, dict[str, Any]] = {}
        for path, blob in files.items():
            steps = path.removeprefix(prefix).split("/")
            for depth in range(1, len(steps) if deep else min(len(steps), 2)):
                above = prefix + "/".join(steps[:depth])
                entries[above] = {"type": "directory", "oid": commit.sha, "size": 0, "path": above}
            if deep or len(steps) == 1:
                entries[path] = _entry(path, blob)
        start, page = int(self.query.get("cursor", ["0"])[0]), self.server.hub.page
        more = {}
        if start + page < len(entries):
            address = f"{self.server.hub.endpoint}{urlsplit(self.path).path}"
            more["Link"] = f'<{address}?recursive={str(deep).lower()}&cursor={start + page}>; rel="next"'
        self.json(list(entries.values())[start : start + page], more)


def _refs(repository: Repository) -> dict[str, list[dict[str, str]]]:
    groups: dict[str, list[dict[str, str]]] = {"branches": [], "converts": [], "tags": [], "pullRequests": []}
    names = {"heads": "branches", "tags": "tags", "pr": "pullRequests", "convert": "converts"}
    for ref, sha in repository.refs.items():
        _, group, name = ref.split("/", 2)
        groups[names[group]].append({"name": name, "ref": ref, "targetCommit": sha})
    return groups


def _discussions(repository: Repository) -> dict[str, Any]:
    about = {"name": repository.id, "type": repository.kind}
    listed = [
        {"num": number, "title": title, "author": {"name": author}, "status": "open", "isPullRequest": True,
         "createdAt": DATE, "repo": about}
        for number, (title, author) in sorted(repository.requests.items(), reverse=True)
    ]  # fmt: skip
    return {"discussions": listed, "count": len(listed), "start": 0}


def _told(commit: Commit) -> dict[str, Any]:
    said = {"id": commit.sha, "title": commit.title, "message": "", "date": DATE}
    return {**said, "authors": [{"user": commit.author}]}


def _entry(path: str, blob: Blob) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "oid": blob.git_id, "size": blob.size, "path": path}
    if is_large(path):
        entry["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": 134}
    return entry


def _information(repository: Repository, commit: Commit, blobs: bool) -> dict[str, Any]:
    """What the hub says about a model or a data set."""
    siblings: list[dict[str, Any]] = [{"rfilename": path} for path in sorted(commit.files)]
    if blobs:
        for sibling in siblings:
            blob = commit.files[sibling["rfilename"]]
            sibling |= {"size": blob.size, "blobId": blob.git_id}
            if is_large(sibling["rfilename"]):
                sibling["lfs"] = {"sha256": blob.sha256, "size": blob.size, "pointerSize": 134}
    said: dict[str, Any] = {
        "_id": commit.sha[:24], "id": repository.id, "author": repository.id.rpartition("/")[0], "sha": commit.sha,
        "lastModified": DATE, "createdAt": DATE, "private": repository.private, "disabled": False,
        "gated": "auto" if repository.gated else False, "downloads": 0, "likes": 0, "tags": [], "siblings": siblings,
    }  # fmt: skip
    if repository.kind == "model":
        said |= {"modelId": repository.id, "library_name": "transformers"}
    return said
