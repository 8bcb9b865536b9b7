"""The stand-in hub itself, asked without any client library: revisions, ranges, listings, refusals, trouble."""

from __future__ import annotations

import gzip
import http.client
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.hub.repositories import Repository
from tests.hub.server import Hub

CONFIG, WEIGHTS = b'{"model_type": "bert"}\n', bytes(range(256)) * 16


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as started:
        yield started


@pytest.fixture
def repository(hub: Hub) -> Repository:
    repository = hub.repository("owner/model")
    repository.commit({"config.json": CONFIG, "model.safetensors": WEIGHTS, "onnx/a.txt": "a", "onnx/b/c.txt": "c"})
    return repository


def ask(address: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (lower case) and body of one request; no redirect is followed."""
    host, _, path = address.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host, timeout=10)
    connection.request(method, f"/{path}", headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    out = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    connection.close()
    return out


def said(hub: Hub, path: str) -> Any:
    return json.loads(ask(f"{hub.endpoint}/{path}")[2])


def test_small_and_large_files_take_different_ways(hub: Hub, repository: Repository):
    sha = repository.at("main").sha
    status, headers, _ = ask(f"{hub.endpoint}/owner/model/resolve/main/config.json", "HEAD")
    assert status == 307 and headers["x-repo-commit"] == sha
    assert headers["location"] == f"/api/resolve-cache/models/owner/model/{sha}/config.json"
    status, headers, body = ask(hub.endpoint + headers["location"])
    # `git hash-object` of this content.
    assert (status, body, headers["etag"]) == (200, CONFIG, '"dc1fb7b6703fe03317c1a080b523bf475f3d4818"')
    status, headers, _ = ask(f"{hub.endpoint}/owner/model/resolve/main/model.safetensors")
    assert status == 302 and headers["location"].startswith(hub.storage) and headers["x-linked-size"] == "4096"
    assert headers["x-linked-etag"].strip('"') in headers["location"]
    assert ask(headers["location"])[2] == WEIGHTS
    assert ask(headers["location"], Authorization="Bearer x")[0] == 400


def test_parts_of_files(hub: Hub, repository: Repository):
    address = ask(f"{hub.endpoint}/owner/model/resolve/main/model.safetensors")[1]["location"]
    for asked, start, stop in (("5-", 5, 4096), ("0-9", 0, 10), ("4000-9999", 4000, 4096), ("-3", 4093, 4096)):
        status, headers, body = ask(address, Range=f"bytes={asked}")
        assert (status, body) == (206, WEIGHTS[start:stop])
        assert headers["content-range"] == f"bytes {start}-{stop - 1}/4096"
    assert ask(address, Range="bytes=4096-")[0] == 416
    hub.fail("/blobs/", whole=True)
    assert ask(address, Range="bytes=5-")[::2] == (200, WEIGHTS)


def test_text_is_compressed_for_those_who_can_read_it(hub: Hub, repository: Repository):
    address = hub.endpoint + ask(f"{hub.endpoint}/owner/model/resolve/main/config.json")[1]["location"]
    _, headers, body = ask(address, Accept_Encoding="gzip, deflate")
    assert headers["content-encoding"] == "gzip" and "content-length" not in headers
    assert gzip.decompress(body) == CONFIG
    assert ask(address, "HEAD", Accept_Encoding="identity")[1]["content-length"] == str(len(CONFIG))


def test_revisions(hub: Hub, repository: Repository):
    first = repository.at("main").sha
    repository.tag("v1")
    second = repository.commit({"config.json": "{}"})
    number = repository.propose({"model.safetensors": b"other"})
    assert said(hub, "api/models/owner/model")["sha"] == second != first
    for name, sha in (("main", second), ("v1", first), (first, first), (first[:7], first)):
        assert said(hub, f"api/models/owner/model/revision/{name}")["sha"] == sha
    assert said(hub, f"api/models/owner/model/revision/refs%2Fpr%2F{number}")["sha"] not in (first, second)
    assert [c["id"] for c in said(hub, "api/models/owner/model/commits/main")] == [second, first]
    assert [c["id"] for c in said(hub, "api/models/owner/model/commits/refs%2Fpr%2F1")][1] == second
    assert said(hub, "api/models/owner/model/discussions?p=0")["discussions"][0]["author"] == {"name": "SFconvertbot"}
    assert said(hub, "api/models/owner/model/refs")["tags"][0]["targetCommit"] == first
    status, headers, _ = ask(f"{hub.endpoint}/owner/model/resolve/v2/config.json")
    assert (status, headers["x-error-code"]) == (404, "RevisionNotFound")


def test_listings_come_in_pages(hub: Hub, repository: Repository):
    tree = "api/models/owner/model/tree/main"

    def names(path: str) -> list[str]:
        return [entry["path"] for entry in said(hub, path)]

    assert names(tree) == ["config.json", "model.safetensors", "onnx"]
    assert names(f"{tree}/onnx") == ["onnx/a.txt", "onnx/b"]
    everything = names(f"{tree}?recursive=true")
    assert everything == ["config.json", "model.safetensors", "onnx", "onnx/a.txt", "onnx/b", "onnx/b/c.txt"]
    assert ask(f"{hub.endpoint}/{tree}/nothing")[1]["x-error-code"] == "EntryNotFound"
    hub.page, address, collected = 4, f"{hub.endpoint}/{tree}?recursive=true", []
    while address:
        _, headers, body = ask(address)
        collected += [entry["path"] for entry in json.loads(body)]
        address = headers.get("link", "").partition(">")[0].removeprefix("<")
    assert collected == everything and len(hub.asked("GET", "cursor=")) == 1


def test_who_may_see_what(hub: Hub, repository: Repository):
    config = f"{hub.endpoint}/owner/model/resolve/main/config.json"

    def answer(address: str, **more: str) -> tuple[int, str | None]:
        status, headers, _ = ask(address, **more)
        return status, headers.get("x-error-code")

    hub.tokens |= {"reader", "stranger"}
    repository.readers.add("reader")
    assert answer(config, Authorization="Bearer nonsense") == (401, None)
    repository.gated = True
    assert answer(config) == (401, "GatedRepo")
    assert answer(config, Authorization="Bearer stranger") == (403, "GatedRepo")
    assert answer(config, Authorization="Bearer reader") == (307, None)
    assert answer(f"{hub.endpoint}/api/models/owner/model") == (200, None)
    repository.private = True
    for address in (config, f"{hub.endpoint}/api/models/owner/model", f"{hub.endpoint}/api/models/owner/nothing"):
        assert answer(address) == (401, "RepoNotFound")
        assert answer(address, Authorization="Bearer stranger") == (404, "RepoNotFound")
    hub.aliases["old-name"] = "owner/model"
    assert ask(f"{hub.endpoint}/api/models/old-name")[1]["location"] == "/api/models/owner/model"


def test_an_absent_file_names_the_commit(hub: Hub, repository: Repository):
    status, headers, _ = ask(f"{hub.endpoint}/owner/model/resolve/main/vocab.txt", "HEAD")
    assert (status, headers["x-error-code"]) == (404, "EntryNotFound")
    assert headers["x-repo-commit"] == repository.at("main").sha


def test_trouble_on_demand(hub: Hub, repository: Repository):
    config, weights = (
        f"{hub.endpoint}/owner/model/resolve/main/{name}" for name in ("config.json", "model.safetensors")
    )
    hub.fail("GET .*config.json", status=503, times=2)
    hub.fail("HEAD .*config.json", status=429, headers={"Retry-After": "7"})
    assert [ask(config)[0] for _ in range(3)] == [503, 503, 307]
    assert ask(config, "HEAD")[1]["retry-after"] == "7"
    storage = ask(weights)[1]["location"]
    cut = hub.fail("/blobs/", cut=100)
    with pytest.raises(http.client.IncompleteRead) as error:
        ask(storage)
    assert error.value.partial == WEIGHTS[:100]
    cut.cut, cut.delay = None, 0.3
    begin = time.monotonic()
    assert ask(storage)[2] == WEIGHTS and time.monotonic() - begin > 0.3
    cut.delay, cut.drip = 0.0, 0.002
    begin = time.monotonic()
    assert ask(storage, Range="bytes=0-99")[2] == WEIGHTS[:100] and time.monotonic() - begin > 0.2


def test_a_hub_that_hangs_and_goes_away(hub: Hub, repository: Repository):
    address = f"{hub.endpoint}/api/models/owner/model"
    hub.fail("api", delay=float("inf"))
    host = hub.endpoint.removeprefix("http://")
    waiting = http.client.HTTPConnection(host, timeout=0.3)
    waiting.request("GET", "/api/models/owner/model")
    with pytest.raises(TimeoutError):
        waiting.getresponse()
    hub.stop()
    with pytest.raises(OSError):
        ask(address)
    hub.faults.clear()
    hub.start()
    assert ask(address)[0] == 200
    assert [entry.status for entry in hub.asked("GET", "api/models")] == [None, 200]


def test_other_hosts_are_refused_and_kept(hub: Hub):
    connection = http.client.HTTPConnection(hub.endpoint.removeprefix("http://"), timeout=10)
    connection.request("GET", "http://elsewhere.example/file")
    assert connection.getresponse().status == 403
    connection.close()
    assert [entry.target for entry in hub.outside] == ["http://elsewhere.example/file"]
