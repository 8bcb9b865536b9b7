"""A secret that a person gives stands in no file, in no store and on no terminal, whatever becomes of the run."""

from __future__ import annotations

import shlex
import socket
from pathlib import Path

import pytest
import yaml

from kdexp.common import redact
from kdexp.common.redact import bare_address, outward, public, without_secrets

PLANTED = "Zq7Planted9"
PASSWORDS = (
    PLANTED,
    f"p@{PLANTED}",
    f"a/{PLANTED}",
    f"a b {PLANTED}",
    f'"{PLANTED}',
    f"'{PLANTED}",
    f"a:{PLANTED}?x",
    f"%40{PLANTED}",
)
FORMS = (
    f"http://{PLANTED}@host:1/x",
    f"https://{PLANTED}:x@host/x",
    f"https://:{PLANTED}@host",
    f"s3://k:{PLANTED}@bucket/x",
    f"http://h/?token={PLANTED}",
    f"http://h/x?a=1&api_key={PLANTED}",
    f"http://h/?sig={PLANTED}&se=1",
    f"http://h?whatever={PLANTED}",
    f"https://b.s3.amazonaws.com/k?X-Amz-Signature={PLANTED}&X-Amz-Credential=A",
    f"mysql://h/d?password='{PLANTED}'",
    f"Authorization: Bearer {PLANTED}",
    f"{{'Authorization': 'Bearer {PLANTED}'}}",
    f"bearer {PLANTED}",
    f"Authorization: {PLANTED}",
    f"password={PLANTED}",
    f"PASSWORD: '{PLANTED} x'",
    f'"secret_access_key": "{PLANTED}"',
    f"api-key={PLANTED}",
    f"AWS_SESSION_TOKEN={PLANTED}",
    f"hf_{PLANTED}",
    f"AKIA{PLANTED.upper()}XYZ",
    f"ghp_{PLANTED}0123456789",
    f"github_pat_{PLANTED}0123456789",
    f"sk-{PLANTED}0123456789",
    f"glpat-{PLANTED}0123456789",
    f"xoxb-{PLANTED}",
    f"eyJ{PLANTED}.{PLANTED}.{PLANTED}",
    f"dapi{'0a' * 16}{PLANTED[:0]}",
)
PLAIN = (
    "http://127.0.0.1:5000",
    "ask me@home",
    "sqlite:///multirun/mlflow.db?timeout=20",
    "sqlite:////home/me@uni/x.db",
    "s3://bucket/prefix",
    "pad_token: [PAD]",
    "tokens=128",
    "a basic sequence of words",
    "hidden.3=0.25",
    "file:///tmp/a@b/c",
    "python -m kdexp task=local seed=1",
    "the password is asked for",
    "study=me@home",
    "cannot open http://127.0.0.1:5000/x: ask me@home",
)


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch):
    """What other tests have told this process is forgotten."""
    monkeypatch.setattr(redact, "_known", set())


@pytest.mark.parametrize("text", FORMS)
@pytest.mark.parametrize("around", ["{}", "cannot open {}: refused", "key='{}'", "(see {})", "first\n{}\nlast"])
def test_a_secret_is_known_by_its_form(text: str, around: str):
    said = without_secrets(around.format(text))
    assert PLANTED.lower() not in said.lower() and "***" in said, said


@pytest.mark.parametrize("text", PLAIN)
def test_what_is_no_secret_stays(text: str):
    assert without_secrets(text) == text == outward(text)


@pytest.mark.parametrize("password", PASSWORDS)
def test_any_password_of_an_address(password: str):
    address = f"postgresql://me:{password}@host:5432/name?sslmode=require"
    assert PLANTED not in public(address) and public(address).endswith("@host:5432/name?sslmode=require")
    assert PLANTED not in yaml.safe_dump(public({"tracking": {"uri": address}, "list": [("x", address)]}))
    redact.learn({"tracking": {"uri": address}})
    for text in (
        f"OperationalError: password {password} is wrong",
        f"{address} cannot be opened (ask me@home)",
        repr(address),
    ):
        assert PLANTED not in without_secrets(text), without_secrets(text)


def test_a_secret_of_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MY_DB_PASSWORD", PLANTED)
    monkeypatch.setenv("PWD", "/tmp/somewhere-else")
    assert without_secrets(f"the server said: {PLANTED}?") == "the server said: ***?"
    assert without_secrets("/tmp/somewhere-else/x") == "/tmp/somewhere-else/x"


def test_short_words_are_hidden_by_their_place_only():
    redact.learn("http://me:abc@host")
    assert without_secrets("abc http://me:abc@host") == "abc http://***@host"


def test_a_database_can_be_opened_again():
    address = f"postgresql+psycopg://me:{PLANTED}@h:5/d?sslmode=require&whatever={PLANTED}"
    assert bare_address(address) == "postgresql+psycopg://me@h:5/d?sslmode=require"
    assert bare_address(f"postgresql://{PLANTED}{PLANTED}@h/d") == "postgresql://h/d"


def test_control_characters_are_written_out():
    assert outward("a\x1b[31mb\x07\x9bc\u202ed\ne\tf") == "a\\x1b[31mb\\x07\\x9bc\\u202ed\ne\tf"
    assert outward("Größe 研究 हिन्दी می‌خواهم") == "Größe 研究 हिन्दी می‌خواهم"


def quoted(value: str) -> str:
    """A value as Hydra's grammar takes it."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def closed_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def nowhere_below(folder: Path, *texts: str) -> None:
    """Nothing that was printed, and no file's name or content, holds the planted word."""
    for text in texts:
        assert PLANTED not in text, text
    for path in folder.rglob("*"):
        assert PLANTED not in path.name
        assert not path.is_file() or PLANTED.encode() not in path.read_bytes(), path


def toy(teacher: Path, data: Path) -> list[str]:
    """Overrides of a run of a few seconds."""
    return [
        "debug=smoke",
        "teacher=local",
        "teacher.name=toy",
        f"teacher.source=path:{teacher}",
        "task=local",
        "task.name=toy",
        f"task.folder={data}",
        "task.label_names=[bad,good]",
        "student=l2",
        "tracking.timeout_s=1",
    ]


ENVIRONMENT = {
    "MLFLOW_TRACKING_TOKEN": f"{PLANTED}-t",
    "AWS_SECRET_ACCESS_KEY": f"{PLANTED}-a",
    "HF_TOKEN": f"hf_{PLANTED}",
}


@pytest.mark.parametrize("grid", [[], ["-m", "study=several"]], ids=["single", "study"])
def test_a_run_that_is_tracked_elsewhere(
    kdexp, tiny_bert_dir: Path, tiny_csv_task: Path, tmp_path: Path, grid: list[str]
):
    address = f"http://{PLANTED}:p@{PLANTED}/ \"'{PLANTED}@127.0.0.1:{closed_port()}/?whatever={PLANTED}"
    done = kdexp([*grid, *toy(tiny_bert_dir, tiny_csv_task), f"tracking.uri={quoted(address)}"], env=ENVIRONMENT)
    assert done.returncode == 0, done.stdout + done.stderr
    nowhere_below(tmp_path / "multirun", done.stdout, done.stderr)
    assert "***@127.0.0.1" in next((tmp_path / "multirun").rglob("config.yaml")).read_text()
    again = kdexp(["sync"], module="kdexp.tracking", env=ENVIRONMENT)
    nowhere_below(tmp_path / "multirun", again.stdout, again.stderr)


def test_a_run_that_fails(kdexp, tiny_bert_dir: Path, tiny_csv_task: Path, tmp_path: Path):
    """It fails where an error repeats an address, and MLflow's own file shows it."""
    label = f"http://me:{PLANTED}@host/bad"
    rows = (tiny_csv_task / "train.csv").read_text().replace(",bad,", f",{label},", 1)
    (tiny_csv_task / "train.csv").write_text(rows)
    words = ["-m", "seed=1", *toy(tiny_bert_dir, tiny_csv_task), "task.limit_train=null"]
    done = kdexp(words, env={**ENVIRONMENT, "MLFLOW_TRACKING_TOKEN": None})
    assert done.returncode != 0 and "host/bad" in done.stderr + done.stdout, done.stderr
    nowhere_below(tmp_path / "multirun", done.stdout, done.stderr)


@pytest.mark.parametrize(
    "words",
    [
        [f"tracking.uri=ftp://me:{PLANTED}@host/x"],
        [f"runtime.remote=s4://k:{PLANTED}@bucket/x"],
        [f"teacher.source=https://me:{PLANTED}@host/m"],
        [f"data.root=http://me:{PLANTED}@host/d", f"tracking.nothing=http://{PLANTED}@h"],
    ],
    ids=lambda words: shlex.join(words).partition("=")[0],
)
def test_a_command_that_is_refused(kdexp, tmp_path: Path, words: list[str]):
    done = kdexp([*words, "task=local", "task.folder=nowhere"], env=ENVIRONMENT)
    assert done.returncode == 2, done.stderr
    nowhere_below(tmp_path, done.stdout, done.stderr)
