"""``export push=ORG/NAME``: the student is on the hub as it is here, and a refusal leaves it whole."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from kdexp.delivery import push
from tests.conftest import RunProgram, sentence
from tests.hub.server import Hub
from tests.hub.test_hub import client
from tests.test_predict import classifier

TOKEN = "hf_writer0000000000"
Export = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as started:
        started.tokens.add(TOKEN)
        started.writers["ours"] = {TOKEN}
        yield started


@pytest.fixture
def export(hub: Hub, tiny_bert_dir: Path, tmp_path: Path, kdexp: RunProgram) -> Export:
    """``export(*words)`` delivers a classifier with that hub; its folder is ``out``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        classifier(tiny_bert_dir, tmp_path / "model", 2)
    (tmp_path / "data").mkdir()
    for name in ("train", "validation"):
        lines = [f"{sentence(row, row % 2)},{'positive' if row % 2 else 'negative'}" for row in range(24)]
        (tmp_path / "data" / f"{name}.csv").write_text("\n".join(["text,label", *lines]) + "\n")

    def run(*words: str, **changes: str | None) -> subprocess.CompletedProcess[str]:
        env = hub.environment(tmp_path, HF_TOKEN=TOKEN, HF_HUB_DISABLE_XET="1", **changes)
        given = ["export", "model", "out=out", "task=local", "forms=", "timed=false", *words]
        return kdexp(given, cwd=tmp_path, env=env)

    return run


def test_a_pushed_student_is_read_from_the_hub(hub: Hub, export: Export, tmp_path: Path):
    done = export("push=ours/small")
    assert done.returncode == 0, done.stderr
    assert f"ours/small: {hub.endpoint}/ours/small" in done.stderr and TOKEN not in done.stdout + done.stderr
    repository = hub.repositories["model", "ours/small"]
    assert repository.private and len(repository.history("main")) == 2, "one commit, after the hub's own"
    sent, here = repository.at("main").files, tmp_path / "out" / "pytorch"
    assert {path.name for path in here.iterdir()} | {".gitattributes"} == set(sent)
    for path in here.iterdir():
        if path.name != "README.md":
            assert b"".join(sent[path.name].pieces(0, sent[path.name].size)) == path.read_bytes()
    card = b"".join(sent["README.md"].pieces(0, sent["README.md"].size)).decode()
    assert 'model="ours/small"' in card and 'model="pytorch"' in (here / "README.md").read_text()
    answers = client(
        hub, tmp_path, """
        import json
        from transformers import pipeline
        texts = ["bright warm day", "dark cold light"]
        places = ("ours/small", "out/pytorch")
        print(json.dumps([pipeline("text-classification", model=place)(texts) for place in places]))
        """, HF_TOKEN=TOKEN,
    )  # fmt: skip
    assert answers[0] == answers[1] and not hub.outside
    again = client(
        hub, tmp_path, """
        import json
        from transformers import AutoConfig
        try: AutoConfig.from_pretrained("ours/small"); print(json.dumps("read"))
        except OSError: print(json.dumps("refused"))
        """, HF_HOME=str(tmp_path / "stranger"),
    )  # fmt: skip
    assert again == "refused", "nobody else sees it"


def test_a_refused_push_leaves_the_export_whole(hub: Hub, export: Export, tmp_path: Path):
    """What a token may not do shows when it is done; what was exported by then stays."""
    done = export("push=others/small")
    assert done.returncode == 1
    assert "does not let this login write to others" in done.stderr and done.stderr.count("Traceback") == 0
    assert "hf upload others/small" in done.stderr and TOKEN not in done.stderr
    for name in ("README.md", "model.safetensors", "config.json", "tokenizer.json"):
        assert (tmp_path / "out" / "pytorch" / name).stat().st_size > 0
    assert ("model", "others/small") not in hub.repositories


def test_what_can_be_known_before_is_said_before_anything_is_made(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from huggingface_hub import constants

    for name, value in hub.environment(tmp_path).items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert push.problems("small", True)[0].startswith("push='small' is no name of a model")
    assert "needs a token that may write" in push.problems("ours/small", True)[0]
    monkeypatch.setenv("HF_TOKEN", "hf_unknown000000000")
    assert "refuses the token that is set" in push.problems("ours/small", True)[0]
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert push.problems("ours/small", True) == []
    hub.repository("ours/small").commit({"a": "a"})
    assert "is there and public, and private=true asks for the other" in push.problems("ours/small", True)[0]
    assert push.problems("ours/small", False) == []
    hub.stop()
    assert "cannot be reached" in push.problems("ours/small", True)[0]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "switched off (HF_HUB_OFFLINE=1)" in push.problems("ours/small", True)[0]
