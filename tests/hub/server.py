"""A loopback server that answers as the model and data hub does, and fails on demand.

    with Hub() as hub:
        hub.repository("google-bert/bert-base-uncased").commit_folder(folder)
        subprocess.run(command, env=hub.environment(tmp_path))
        assert hub.asked("GET", "/blobs/")

Two ports play the hub and its large-file storage, which is another host to a client. What a client wants from any
third host comes here too, as to a proxy: it is refused, and :attr:`Hub.outside` has it.
"""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

from tests.hub.answers import HubHandler, StorageHandler
from tests.hub.repositories import Blob, Repository
from tests.hub.transport import Asked, Fault, Server


class Hub:
    """The stand-in; a context manager that listens on two free ports of 127.0.0.1.

    Attributes:
        repositories: by kind and id.
        aliases: old id -> new id, answered with a redirect as for ``bert-base-uncased``.
        tokens: that the hub knows; any other is refused.
        writers: organisation -> the tokens that may write below it.
        uploads: large files that were sent and belong to no commit yet, by their sha256.
        page: entries of a listing that are sent at once.
        faults: looked at in order, the first that fits and is not used up counts.
        requests: all that came in, those for the storage and for other hosts included.
    """

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.aliases: dict[str, str] = {}
        self.tokens: set[str] = set()
        self.writers: dict[str, set[str]] = {}
        self.uploads: dict[str, bytes] = {}
        self.page = 1000
        self.faults: list[Fault] = []
        self.requests: list[Asked] = []
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self._ports = (0, 0)
        self._servers: list[Server] = []

    def __enter__(self) -> Hub:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen; after :meth:`stop`, on the same ports."""
        self.stopping.clear()
        self._servers = [Server(self, HubHandler, self._ports[0]), Server(self, StorageHandler, self._ports[1])]
        self._ports = (self._servers[0].server_port, self._servers[1].server_port)
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections, as a host that is away, and break those that are open."""
        self.stopping.set()
        for server in self._servers:
            server.end()
        self._servers = []

    @property
    def endpoint(self) -> str:
        """The value for HF_ENDPOINT."""
        return f"http://127.0.0.1:{self._ports[0]}"

    @property
    def storage(self) -> str:
        """Where large files are."""
        return f"http://127.0.0.1:{self._ports[1]}"

    def repository(self, id: str, kind: str = "model") -> Repository:
        """Return the repository of that name; a new, empty one if there is none."""
        return self.repositories.setdefault((kind, id), Repository(id, kind))

    def fail(self, pattern: str, **trouble: Any) -> Fault:
        """Add a :class:`Fault`."""
        self.faults.append(Fault(pattern, **trouble))
        return self.faults[-1]

    def asked(self, method: str, pattern: str) -> list[Asked]:
        """Return the requests with that method in whose target a regular expression is found."""
        return [r for r in self.requests if r.method == method and re.search(pattern, r.target)]

    @property
    def outside(self) -> list[Asked]:
        """The requests that were meant for other hosts."""
        return [r for r in self.requests if r.method == "CONNECT" or not r.target.startswith("/")]

    def environment(self, home: Path, **changes: str | None) -> dict[str, str | None]:
        """Return the variables (None = unset) with which a program works with this hub and with nothing else.

        Args:
            home: folder of its caches.
            changes: further variables, such as ``HF_HUB_OFFLINE="1"``.
        """
        names = (
            "HF_HUB_OFFLINE HF_DATASETS_OFFLINE TRANSFORMERS_OFFLINE HF_TOKEN HF_HUB_CACHE HF_DATASETS_CACHE "
            "HF_HUB_DISABLE_XET DISABLE_SAFETENSORS_CONVERSION HTTP_PROXY HTTPS_PROXY http_proxy https_proxy"
        )
        unset: dict[str, str | None] = dict.fromkeys(names.split())
        return {
            **unset,
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home / "huggingface"),
            "XDG_CACHE_HOME": str(home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            **dict.fromkeys(("ALL_PROXY", "all_proxy"), self.endpoint),
            **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
            **changes,
        }

    def blob(self, sha256: str) -> Blob | None:
        """Return a large file by the name it has in the storage."""
        for repository in list(self.repositories.values()):
            for commit in list(repository.commits.values()):
                for blob in commit.files.values():
                    if blob.sha256 == sha256:
                        return blob
        return None
