"""What the stand-in hub answers to those who write: who they are, a new repository, files, a commit.

It follows what huggingface_hub 2.4 sends without the package hf_xet (or with HF_HUB_DISABLE_XET=1).
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any

from tests.hub.repositories import Repository, is_large

if TYPE_CHECKING:
    from tests.hub.transport import Handler


def answered(asked: Handler, path: str) -> bool:
    """Answer what belongs to no repository yet; tells whether it did."""
    if path == "api/whoami-v2":
        if _login(asked):
            asked.json({"type": "user", "name": "reader", "orgs": []})
    elif path == "api/repos/create":
        _create(asked)
    elif path == "api/validate-yaml":
        asked.json({"errors": [], "warnings": []})
    elif path.endswith(".git/info/lfs/objects/batch"):
        _places(asked)
    else:
        return False
    return True


def _token(asked: Handler) -> str:
    return (asked.headers.get("Authorization") or "").removeprefix("Bearer ").strip()


def _login(asked: Handler) -> bool:
    if _token(asked) in asked.server.hub.tokens:
        return True
    asked.error(401, None, "Invalid credentials in Authorization header")
    return False


def _may_write(asked: Handler, organisation: str) -> bool:
    if not _login(asked):
        return False
    if _token(asked) in asked.server.hub.writers.get(organisation, ()):
        return True
    asked.error(403, None, f"You don't have the rights to create a model under the namespace {organisation}")
    return False


def _create(asked: Handler) -> None:
    wanted, hub = json.loads(asked.body), asked.server.hub
    id = f"{wanted['organization']}/{wanted['name']}"
    if not _may_write(asked, wanted["organization"]):
        return
    if ("model", id) in hub.repositories:
        asked.error(409, None, "You already created this model repo")
        return
    repository = hub.repository(id)
    repository.private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
    repository.readers.add(_token(asked))
    repository.commit({".gitattributes": "*.safetensors filter=lfs\n"}, title="initial commit")
    asked.json({"url": f"{hub.endpoint}/{id}", "name": id, "id": id})


def modes(asked: Handler) -> None:
    """Say which files are sent to the large-file storage."""
    files = [one["path"] for one in json.loads(asked.body)["files"]]
    ways = {path: "lfs" if is_large(path) else "regular" for path in files}
    told = [{"path": path, "uploadMode": way, "shouldIgnore": False} for path, way in ways.items()]
    asked.json({"files": told})


def _places(asked: Handler) -> None:
    hub, told = asked.server.hub, []
    for one in json.loads(asked.body)["objects"]:
        upload = {"href": f"{hub.storage}/blobs/{one['oid']}", "header": {}}
        told.append({**one, "authenticated": True, "actions": {"upload": upload}})
    asked.json({"transfer": "basic", "objects": told})


def store(asked: Handler) -> None:
    """Keep a large file that was sent, if it is what its address says."""
    sha256 = hashlib.sha256(asked.body).hexdigest()
    if asked.path != f"/blobs/{sha256}":
        asked.error(400, None, "BadDigest")
        return
    asked.server.hub.uploads[sha256] = asked.body
    asked.whole(b"", {"ETag": f'"{sha256}"'})


def commit(asked: Handler, repository: Repository) -> None:
    """Make a commit of the files that were sent, in the request or before it."""
    if not _may_write(asked, repository.id.partition("/")[0]):
        return
    files: dict[str, bytes | Any] = {}
    title = ""
    for line in asked.body.decode().splitlines():
        item = json.loads(line)
        value = item["value"]
        if item["key"] == "header":
            title = value["summary"]
        elif item["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif item["key"] == "lfsFile":
            files[value["path"]] = asked.server.hub.uploads[value["oid"]]
    sha = repository.commit(files, title=title)
    asked.json(
        {"success": True, "commitOid": sha, "commitUrl": f"{asked.server.hub.endpoint}/{repository.id}/commit/{sha}"}
    )
