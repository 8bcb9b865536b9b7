"""The real clients at work with the stand-in hub, each in a process of its own: online, troubled, offline."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import program_environment
from tests.hub.catalogue import CATALOGUE
from tests.hub.checkpoints import publish
from tests.hub.glue import publish_glue
from tests.hub.server import Hub

# Sources of kdexp's shipped teachers, and one student of each kind.
SOURCES = ("bert_base", "bert_large", "roberta_base", "roberta_large", "electra", "deberta_v3_base", "modernbert")
SOURCES += ("minilm", "bert_l4_h256", "distilroberta", "gpt2")
SPM = importlib.util.find_spec("sentencepiece") is not None


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as started:
        yield started


def client(hub: Hub, home: Path, code: str, **changes: str | None) -> Any:
    """Run code in a fresh process that knows only this hub; it prints JSON as its last line, which is returned."""
    environment = program_environment(hub.environment(home, HF_HUB_DISABLE_PROGRESS_BARS="1", **changes))
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


NAMED = """
    import json, sys
    from huggingface_hub import hf_hub_download, snapshot_download

    def outcome(call, *args, **options):
        try:
            return call(*args, **options)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
"""


def test_snapshots_by_branch_tag_commit_and_old_name(hub: Hub, tmp_path: Path):
    repository = publish(hub, "bert_l2_h128", tmp_path / "files")
    first = repository.at("main").sha
    repository.tag("v1")
    second = repository.commit({"config.json": "{}"})
    hub.aliases["bert-tiny"] = repository.id
    fetch = f"""{NAMED}
    names = [("{repository.id}", revision) for revision in (None, "v1", "{first}")] + [("bert-tiny", None)]
    print(json.dumps([snapshot_download(name, revision=revision)[-40:] for name, revision in names]))
    """
    assert client(hub, tmp_path, fetch) == [second, first, first, second]
    asked = len(hub.requests)
    offline = fetch.replace(' + [("bert-tiny", None)]', "")
    assert client(hub, tmp_path, offline, HF_HUB_OFFLINE="1") == [second, first, first]
    assert len(hub.requests) == asked and not hub.outside
    cached = tmp_path / "huggingface" / "hub" / f"models--{repository.id.replace('/', '--')}" / "snapshots" / first
    for file in sorted((tmp_path / "files").iterdir()):
        assert (cached / file.name).read_bytes() == file.read_bytes()


def test_refusals_have_the_names_that_clients_know(hub: Hub, tmp_path: Path):
    hub.tokens |= {"hf_reader", "hf_stranger"}
    for name, state in (("gated", "gated"), ("hidden", "private")):
        repository = hub.repository(f"owner/{name}")
        repository.commit({"config.json": "{}"})
        repository.readers.add("hf_reader")
        setattr(repository, state, True)
    code = f"""{NAMED}
    out = {{}}
    for name in ("gated", "hidden", "absent"):
        for token in (False, "hf_stranger", "hf_unknown", "hf_reader"):
            out[f"{{name}} {{token}}"] = outcome(hf_hub_download, f"owner/{{name}}", "config.json", token=token)
    out["revision"] = outcome(hf_hub_download, "owner/gated", "config.json", token="hf_reader", revision="v9")
    out["file"] = outcome(hf_hub_download, "owner/gated", "vocab.txt", token="hf_reader")
    print(json.dumps({{key: value.partition(":")[0] for key, value in out.items()}}))
    """
    out = client(hub, tmp_path, code)
    missing = "RepositoryNotFoundError"
    assert [out[f"gated {token}"] for token in ("False", "hf_stranger")] == ["GatedRepoError"] * 2
    assert [out[f"hidden {token}"] for token in ("False", "hf_stranger")] == [missing] * 2
    assert [out[f"absent {token}"] for token in ("False", "hf_stranger", "hf_reader")] == [missing] * 3
    assert out["gated hf_reader"].endswith("config.json") and out["hidden hf_reader"].endswith("config.json")
    assert all("Error" in out[f"{name} hf_unknown"] for name in ("gated", "hidden", "absent"))
    assert (out["revision"], out["file"]) == ("RevisionNotFoundError", "RemoteEntryNotFoundError")


def test_interrupted_and_limited_downloads_are_taken_up_again(hub: Hub, tmp_path: Path):
    repository = publish(hub, "bert_l2_h128", tmp_path / "files")
    hub.fail("GET /blobs/", cut=5000, times=1)
    hub.fail("HEAD .*config.json", status=429, headers={"Retry-After": "0"}, times=1)
    hub.fail("GET .*resolve-cache.*vocab.txt", delay=0.5, drip=0.001)
    code = f"""{NAMED}
    from huggingface_hub import constants
    constants.DOWNLOAD_CHUNK_SIZE = 1000  # what is kept of a broken download are whole pieces; 10 MB otherwise
    files = ("model.safetensors", "config.json", "vocab.txt")
    print(json.dumps([hf_hub_download("{repository.id}", file) for file in files]))
    """
    for path in map(Path, client(hub, tmp_path, code)):
        assert path.read_bytes() == (tmp_path / "files" / path.name).read_bytes()
    assert [entry.headers.get("range") for entry in hub.asked("GET", "/blobs/")] == [None, "bytes=5000-"]
    assert [entry.status for entry in hub.asked("HEAD", "resolve/main/config.json")] == [429, 307]


LOAD = """
    import json
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, logging

    logging.set_verbosity_error()
    out = {}
    for name, (repository, revision) in json.loads(SOURCES).items():
        for part, auto, options in (
            ("config", AutoConfig, {}),
            ("tokenizer", AutoTokenizer, {}),
            ("model", AutoModelForSequenceClassification, {"use_safetensors": True}),
        ):
            try:
                loaded = auto.from_pretrained(repository, revision=revision, trust_remote_code=False, **options)
                out[f"{name} {part}"] = type(loaded).__name__
            except Exception as error:
                out[f"{name} {part}"] = f"{type(error).__name__}: {error}"
    print(json.dumps(out))
"""


def test_transformers_loads_from_the_hub_and_again_without_it(hub: Hub, tmp_path: Path):
    """What a program that takes safetensors only gets, online and then from its cache.

    A checkpoint that is pickled on the main branch is found through the robot's pull request, if there is one, and
    only when the newest revision is asked for and the hub answers; without one, another host is asked to make it.
    """
    names: dict[str, tuple[str, str | None]] = {}
    for name in SOURCES:
        names[name] = (publish(hub, name, tmp_path / name).id, None)
    deberta = CATALOGUE["deberta_v3_base"].repository
    names["deberta pinned"] = (deberta, hub.repository(deberta).at("main").sha)
    code = f"    SOURCES = {json.dumps(names)!r}\n" + LOAD
    online = client(hub, tmp_path, code)
    asked = len(hub.requests)
    assert [entry.target for entry in hub.outside] == ["safetensors-convert.hf.space:443"]
    offline = client(hub, tmp_path, code, HF_HUB_OFFLINE="1")
    assert len(hub.requests) == asked
    for key, value in online.items():
        name, _, part = key.rpartition(" ")
        if part == "tokenizer" and name.startswith("deberta") and not SPM:
            assert value.startswith("ValueError: `tiktoken` is required"), key
        elif (name, part) in (("electra", "model"), ("deberta pinned", "model")):
            assert value.startswith("OSError"), key
        else:
            assert not value.startswith(("OSError", "ValueError")), f"{key}: {value}"
    broken = {key for key, value in offline.items() if value.startswith("OSError")}
    assert broken == {"electra model", "deberta_v3_base model", "deberta pinned model"}
    assert {key: value for key, value in offline.items() if key not in broken} == {
        key: value for key, value in online.items() if key not in broken
    }
    neglected = [file for name in SOURCES for file in CATALOGUE[name].neglected]
    assert neglected and not any(entry.target.endswith(tuple(neglected)) for entry in hub.requests)


def test_glue_from_the_hub_and_again_without_it(hub: Hub, tmp_path: Path):
    repository = publish_glue(hub)
    repository.tag("v1")
    code = """
    import json, sys
    from datasets import load_dataset

    out = {}
    for name in ("rte", "stsb", "mnli"):
        splits = load_dataset("nyu-mll/glue", name)
        first = splits["train"][0]
        out[name] = [{k: v.num_rows for k, v in splits.items()}, str(splits["train"].features["label"]), first]
    print(json.dumps(out))
    """
    online = client(hub, tmp_path, code)
    assert online["rte"][0] == {"train": 48, "validation": 24, "test": 24}
    assert "entailment" in online["rte"][1] and online["stsb"][1] == "Value('float32')"
    assert set(online["mnli"][0]) > {"validation_matched", "test_mismatched"}
    assert set(online["rte"][2]) == {"sentence1", "sentence2", "label", "idx"}
    # Where datasets counts its downloads and where it asks for ready-made information; neither is needed.
    hosts = {entry.target.removeprefix("http://").split("/")[0].rpartition(":")[0] for entry in hub.outside}
    assert hosts <= {"s3.amazonaws.com", "datasets-server.127.0.0.1"}
    asked = len(hub.requests)
    assert client(hub, tmp_path, code, HF_HUB_OFFLINE="1") == online and len(hub.requests) == asked
    wrong = """
    import json
    from datasets import load_dataset

    out = []
    glue = "nyu-mll/glue"
    for name, config, revision in ((glue, "rta", "v1"), (glue, "rte", "v9"), ("no/such", "rte", "v1")):
        try:
            load_dataset(name, config, revision=revision)
        except Exception as error:
            out.append(f"{type(error).__name__}: {error}")
    print(json.dumps(out))
    """
    config, revision, absent = client(hub, tmp_path / "huggingface", wrong)
    assert "BuilderConfig 'rta' not found" in config and "rte" in config
    assert "v9" in revision
    assert absent.startswith("DatasetNotFoundError")
