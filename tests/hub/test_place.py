"""The hub as a place, seen by the program: which commit is taken, and one sentence for whatever the hub cannot give."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import program_environment
from tests.hub.glue import publish_glue
from tests.hub.repositories import Repository
from tests.hub.server import Hub

LIMIT = 2
"""Seconds that the hub gets for an answer in these tests."""
SECRET = "hf_" + "Secret" * 5


@pytest.fixture(scope="module")
def running() -> Iterator[Hub]:
    with Hub() as started:
        yield started


@pytest.fixture
def hub(running: Hub) -> Iterator[Hub]:
    yield running
    running.faults[:], running.requests[:] = [], []
    running.tokens.clear()
    running.stop()
    running.start()


@pytest.fixture
def repository(hub: Hub, tiny_bert_dir: Path, request: pytest.FixtureRequest) -> Repository:
    """A model that no other test has in its cache."""
    repository = hub.repository(f"owner/{request.node.name[5:30]}")
    repository.commit_folder(tiny_bert_dir)
    return repository


class Asker:
    """A process that goes on preparing runs, as the parent of a study does; what it knows is forgotten in between."""

    CODE = """
    import copy, json, os, sys
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf
    from kdexp.cli import main
    from kdexp.common import network
    from kdexp.config.resolve import resolve
    from kdexp.models import source
    from kdexp.run import spec
    from kdexp.sweep import plugins

    plugins.register()
    main.resolvers()
    with initialize_config_dir(main.CONFIG_PATH, version_base="1.3"):
        composed = OmegaConf.to_container(compose("config", overrides=sys.argv[1:]), resolve=True)
        rte = OmegaConf.to_container(compose("config", overrides=["task=rte"]).task, resolve=True)
    print("answer null", flush=True)
    for line in sys.stdin:
        network.ask.cache_clear()
        network._silent.clear()
        raw = copy.deepcopy(composed)
        environment, changes = json.loads(line)
        os.environ.update(environment)
        weights = changes.pop("weights", False)
        if changes.pop("rte", None):
            raw["task"] = copy.deepcopy(rte)
        for key, value in changes.items():
            *groups, last = key.split(".")
            place = raw
            for group in groups:
                place = place[group]
            place[last] = value
        run, problems = spec.prepare_resolved(resolve(raw))
        answer = {"problems": problems}
        if run:
            teacher, commits = run.config.teacher, [run.config.teacher.commit, run.config.task.get("hub_commit")]
            answer |= {"id": run.id, "layers": teacher.num_layers, "commit": commits[0], "data": commits[1]}
            answer["unknown"] = spec.unknown(run.config)
            answer["origin"] = source.origin(teacher.source, teacher.commit, None)
            if weights:
                try:
                    source.fetch(teacher, weights=True)
                except ValueError as error:
                    answer["problems"] = [str(error)]
        print("answer", json.dumps(answer), flush=True)
        for name in environment:
            del os.environ[name]
    """

    def __init__(self, hub: Hub, home: Path, **changes: str | None):
        environment = program_environment(hub.environment(home, **changes))
        self.home, self.errors = home, home / "stderr"
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(self.CODE), "teacher=hub", "teacher.source=???"], cwd=home,
            env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors.open("w"),
        )  # fmt: skip
        self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout
        for line in self.process.stdout:
            if line.startswith("answer "):
                return json.loads(line.removeprefix("answer "))
        raise AssertionError(self.errors.read_text())

    def __call__(self, repository: Repository | str, env: dict[str, str] | None = None, **changes: Any) -> Any:
        """Problems, and if there are none what was taken.

        Args:
            repository: the teacher's, or its name.
            env: further variables, for this question.
            changes: ``teacher__revision="v1"`` changes ``teacher.revision``.
        """
        assert self.process.stdin
        name = repository if isinstance(repository, str) else repository.id
        keys = {key.replace("__", "."): value for key, value in changes.items()}
        self.process.stdin.write(json.dumps([env or {}, {"teacher.source": f"hub:{name}", **keys}]) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()

    def cached(self, repository: Repository, commit: str) -> Path:
        """Where its cache has a commit."""
        return self.home / "huggingface" / "hub" / f"models--{repository.id.replace('/', '--')}" / "snapshots" / commit


@pytest.fixture(scope="module")
def ask(running: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asker]:
    """One process for all tests: it takes seconds to start."""
    process = Asker(
        running, tmp_path_factory.mktemp("home"), HF_HUB_ETAG_TIMEOUT=str(LIMIT), HF_HUB_DOWNLOAD_TIMEOUT="1"
    )
    yield process
    process.close()


OFF = {"HF_HUB_OFFLINE": "1"}
SIZES = {
    "teacher__family": "bert", "teacher__num_layers": 4, "teacher__hidden_size": 32, "teacher__num_heads": 4,
    "teacher__intermediate_size": 64, "teacher__vocab_size": 131,
}  # fmt: skip
READER = "hf_reader"

TROUBLES: dict[str, tuple[dict[str, Any], str]] = {
    "hangs": ({"delay": float("inf")}, "gives no whole answer within 2 s (HF_HUB_ETAG_TIMEOUT)"),
    "drips": ({"drip": 0.3}, "gives no whole answer within 2 s"),
    "breaks off": ({"cut": 20}, "cannot be reached (peer closed connection"),
    "is broken": ({"status": 500}, "answers 500: try later"),
    "is overloaded": ({"status": 503}, "answers 503: try later"),
    "has enough": ({"status": 429, "headers": {"Retry-After": "55"}}, "limits requests (429): try later, or log in"),
    "is elsewhere": ({"status": 404}, "answers 404: check HF_ENDPOINT"),
    "forbids": ({"status": 403}, "does not let this login read owner/"),
    "is a login page": ({"status": 200, "headers": {"Content-Type": "text/html"}}, "does not answer as a hub does"),
}


def test_a_hub_in_trouble_is_one_sentence_within_seconds(hub: Hub, repository: Repository, ask: Asker) -> None:
    hub.tokens.add(SECRET)
    for at in ("GET /api/models/", "HEAD .*resolve/.*/config.json", "GET .*/tokenizer.json"):
        for name, (fault, words) in TROUBLES.items():
            if at.startswith("HEAD") and name in ("drips", "breaks off", "is a login page"):
                continue  # they have no body
            if at.endswith("tokenizer.json"):
                if name not in ("hangs", "is broken"):
                    continue  # the client tries again for as long as it may
                words = words.replace(f"within {LIMIT} s", f"within {3 * LIMIT} s")
            hub.faults[:] = []
            hub.fail(at, **fault)
            began = time.monotonic()
            problems = ask(repository, {"HF_TOKEN": SECRET})["problems"]
            assert len(problems) == 1 and words in problems[0], (at, name, problems)
            # The clients alone would take 24 s for a broken hub and for ever for one that hangs or drips.
            assert time.monotonic() - began < 3 * LIMIT + 8, (at, name)
            assert problems[0].startswith(f"teacher.source=hub:{repository.id}: ") and SECRET not in problems[0]
            assert re.fullmatch(r"[^\n]{40,500}\.", problems[0]), problems[0]


def test_a_hub_that_is_away(hub: Hub, repository: Repository, ask: Asker) -> None:
    hub.stop()
    problems = ask(repository)["problems"]
    assert len(problems) == 1 and "cannot be reached ([Errno 111] Connection refused)" in problems[0]
    hub.start()
    assert ask(repository)["layers"] == 4


def refused(hub: Hub, repository: Repository) -> None:
    """Repositories that cannot be read, for :data:`REFUSED`."""
    files = dict(repository.at("main").files)
    parts = {name: blob.source for name, blob in files.items()}
    for name in ("gated", "closed", "hidden"):
        other = hub.repository(f"owner/{name}")
        other.commit(parts)
        other.readers.add(READER)
    hub.repository("owner/gated").gated = hub.repository("owner/closed").gated = True
    hub.repository("owner/hidden").private = True
    hub.repository("owner/no-config").commit({k: v for k, v in parts.items() if k != "config.json"})
    pickled = {k: v for k, v in parts.items() if k != "model.safetensors"}
    hub.repository("owner/pickled").commit({**pickled, "pytorch_model.bin": b"pickle"})
    hub.repository("owner/pickled").propose({"model.safetensors": parts["model.safetensors"]})
    reader = json.loads(parts["tokenizer.json"].read_bytes())
    special = {entry["content"] for entry in reader["added_tokens"]}
    vocabulary = reader["model"]["vocab"]
    reader["model"]["vocab"] = {w if w in special else f"qqx{i}": i for w, i in vocabulary.items()}
    hub.repository("owner/other-words").commit({**parts, "tokenizer.json": json.dumps(reader)})
    described = ("tokenizer.json", "tokenizer_config.json")
    hub.repository("owner/no-words").commit({k: v for k, v in parts.items() if k not in described})
    hub.repository("owner/empty").commit({".gitattributes": ""})
    hub.repository("owner/odd").commit({**parts, "config.json": "[]"})
    hub.repository("owner/cut").commit({**parts, "config.json": '{"model_type": "be'})


LOGIN = "(HF_TOKEN, or `hf auth login`)"
GATED = f"is gated: accept its conditions on its page and log in as who was let in {LOGIN}"
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("owner/gated", {}, f"owner/gated {GATED}"),
    ("owner/hidden", {}, f"has no model owner/hidden that this login may see: correct the name, or log in {LOGIN}"),
    ("owner/absent", {}, "has no model owner/absent that this login may see"),
    ("nobody", {}, "has no model nobody that this login may see"),
    ("", {"teacher__revision": "v9"}, "REPOSITORY has no revision v9: name a branch, a tag or a commit that it has"),
    ("", {"teacher__revision": "0" * 40}, f"REPOSITORY has no revision {'0' * 40}"),
    ("owner/no-config", {}, "has no config.json at commit"),
    ("owner/empty", {}, "has no config.json at commit"),
    ("owner/odd", {}, "it is not a model's config.json"),
    ("owner/cut", {}, "config.json cannot be read"),
    ("owner/no-words", {}, "no tokenizer can be loaded from"),
    ("owner/pickled", {}, "is pickled, and there is no model.safetensors"),
    (" ", {}, "models of the hub are called OWNER/NAME"),
    ("a/b/c", {}, "models of the hub are called OWNER/NAME"),
    ("../../etc", {}, "models of the hub are called OWNER/NAME"),
    ("", {"teacher__revision": "../../x"}, "no branch, tag or commit is called so"),
    ("", {"teacher__revision": "a b"}, "no branch, tag or commit is called so"),
    ("", {"teacher__revision": 3}, "teacher.revision"),
    ("", {"teacher__commit": "0" * 40}, "teacher.commit is filled in by kdexp"),
    ("", {"teacher__num_layers": 12}, "teacher.num_layers=12, but the config.json of hub:REPOSITORY at commit"),
    ("", {"teacher__hidden_size": 64}, "teacher.hidden_size=64, but the config.json of hub:REPOSITORY at commit"),
    ("", {"teacher__num_heads": 8}, "teacher.num_heads=8, but"),
    ("", {"teacher__vocab_size": 9}, "teacher.vocab_size=9, but"),
    ("", {"teacher__intermediate_size": 9}, "teacher.intermediate_size=9, but"),
    ("", {"teacher__family": "roberta"}, "teacher.family=roberta, but"),
    ("", {"recipe__max_length": 999}, "teacher=hub can read 128 tokens"),
    ("", {"teacher__sha256": "0" * 64}, "teacher.sha256 is not checked for hub sources"),
    ("", {"student__num_layers": 9}, "needs a teacher of at least 9 layers (it has 4)"),
]  # fmt: skip


def test_what_the_hub_has_not_is_said_before_anything_is_loaded(hub: Hub, repository: Repository, ask: Asker) -> None:
    refused(hub, repository)
    for name, changes, words in REFUSED:
        problems = ask(name or repository, **changes)["problems"]
        words = words.replace("REPOSITORY", repository.id)
        assert len(problems) == 1 and words in problems[0], (name, changes, problems)
        assert re.fullmatch(r"[^\n]{40,600}\.", problems[0]), problems[0]
    assert "pytorch_model.bin is pickled" in ask("owner/pickled")["problems"][0]
    assert ask("owner/pickled", teacher__revision="refs/pr/1")["layers"] == 4
    assert not (ask.home / "multirun").exists() and not hub.asked("GET", "/blobs/")


def test_words_that_a_tokenizer_of_the_hub_does_not_know(
    hub: Hub, repository: Repository, ask: Asker, tiny_csv_task: Path
) -> None:
    refused(hub, repository)
    task = {
        "task__name": "toy", "task__folder": str(tiny_csv_task), "task__label_names": ["bad", "good"],
        "task__columns": ["text"], "task__hub": None, "task__files": {s: f"{s}.csv" for s in ("train", "validation")},
    }  # fmt: skip
    assert ask(repository, rte=True, **task)["problems"] == []
    (problem,) = ask("owner/other-words", rte=True, **task)["problems"]
    assert "does not know 100% of the tokens in the training texts of task=toy (such as" in problem
    assert ask("owner/other-words", rte=True, dry=True, **task)["problems"] == [problem], "the cache has it now"


def test_a_login_is_used_and_never_shown(hub: Hub, repository: Repository, ask: Asker) -> None:
    refused(hub, repository)
    hub.tokens.add(READER)
    for name in ("gated", "hidden"):
        assert ask(f"owner/{name}", {"HF_TOKEN": READER})["layers"] == 4
    unknown = ask(repository, {"HF_TOKEN": SECRET})["problems"]
    assert len(unknown) == 1 and "refuses the token that is set" in unknown[0] and SECRET not in unknown[0]
    hub.tokens.add(SECRET)
    stranger = ask("owner/closed", {"HF_TOKEN": SECRET})["problems"]
    assert len(stranger) == 1 and "is gated" in stranger[0] and SECRET not in stranger[0]


def test_a_revision_is_taken_as_the_commit_that_it_is_now(hub: Hub, repository: Repository, ask: Asker) -> None:
    first = repository.at("main").sha
    repository.tag("v1")
    repository.branch("feature/x")
    hub.aliases["tiny"] = repository.id
    plain = ask(repository)
    assert plain["commit"] == first and plain["origin"] == f"hub:{repository.id}@{first}" and plain["layers"] == 4
    for revision in ("main", "v1", first, "feature/x"):
        now = ask(repository, teacher__revision=revision)
        assert now["origin"] == plain["origin"] and now["id"] != plain["id"], revision
    assert ask(repository, teacher__revision=first[:9])["commit"] == first
    assert ask("tiny")["commit"] == first
    second = repository.commit({"README.md": "news"})
    moved = ask(repository)
    assert moved["commit"] == second and moved["origin"] != plain["origin"] and moved["id"] == plain["id"]
    assert ask(repository, teacher__revision="v1")["commit"] == first


def test_nobody_is_asked_where_nothing_will_be_run(hub: Hub, repository: Repository, ask: Asker) -> None:
    for looking in ({"dry": True}, {"plan": "show"}):
        (problem,) = ask(repository, **looking)["problems"]
        assert "its sizes are not in the local cache, and dry=true and plan=show do not ask the hub" in problem
        planned = ask(repository, **looking, **SIZES)
        assert planned["unknown"] == [f"which commit of hub:{repository.id} is the teacher"]
    assert not hub.requests
    known, asked = ask(repository), len(hub.requests)
    assert ask(repository, dry=True) == ask(repository, plan="show") == known and len(hub.requests) == asked


def test_the_cache_answers_where_the_hub_is_switched_off(hub: Hub, repository: Repository, ask: Asker) -> None:
    first = repository.at("main").sha
    (cold,) = ask(repository, OFF)["problems"]
    assert "is not in the local cache and the hub is switched off (HF_HUB_OFFLINE=1)" in cold
    assert not hub.requests
    warm, cached = ask(repository), ask.cached(repository, first)
    assert {path.name for path in cached.iterdir()} == {"config.json", "tokenizer.json", "tokenizer_config.json"}
    (part,) = ask(repository, OFF)["problems"]
    assert f"the local cache has commit {first} without its model.safetensors" in part
    fetched = "source.fetch(Teacher(name='t', source=sys.argv[1], commit=sys.argv[2]), weights=True)"
    imports = "import sys; from kdexp.models import source; from kdexp.config.schema import Teacher; "
    command = [sys.executable, "-c", imports + fetched, f"hub:{repository.id}", first]
    environment = program_environment(hub.environment(ask.home))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and not done.stderr and (cached / "model.safetensors").is_file(), done.stderr
    asked = len(hub.requests)
    assert ask(repository, OFF) == warm == {**ask(repository, teacher__revision=first), "id": warm["id"]}
    assert len(hub.requests) == asked  # a whole commit in the cache never moves
    hub.stop()
    (away,) = ask(repository)["problems"]
    assert f"(the local cache has commit {first}: HF_HUB_OFFLINE=1 uses that)" in away
    hub.start()
    repository.commit({"README.md": "news"})
    assert ask(repository)["commit"] != first
    (newer,) = ask(repository, OFF)["problems"]
    assert "without its model.safetensors" in newer and ask(repository, OFF, teacher__revision=first)["commit"] == first
    (cached / "config.json").unlink()
    (gone,) = ask(repository, OFF, teacher__revision=first)["problems"]
    assert f"the local cache has commit {first} without its config.json" in gone


DOWNLOADS: dict[str, tuple[dict[str, Any], str]] = {
    "dies": ({"cut": 5000}, "cannot be reached (peer closed connection"),
    "hangs": ({"delay": float("inf")}, "gives no whole answer: check the network, or try later"),
    "forbids": ({"status": 403}, "does not let this login read owner/"),
    "has lost it": ({"status": 404}, "answers 404: check HF_ENDPOINT and the name"),
    "is a login page": ({"status": 200, "headers": {"Content-Type": "text/html"}}, "sent something else than the file"),
}
"""What can happen to the weights, which are fetched by the run that needs them."""


def test_a_hub_that_fails_while_weights_come(hub: Hub, repository: Repository, ask: Asker) -> None:
    for name, (fault, words) in DOWNLOADS.items():
        hub.faults[:] = []
        hub.fail("GET /blobs/", **fault)
        began = time.monotonic()
        (problem,) = ask(repository, weights=True)["problems"]
        assert words in problem and problem.endswith("and the same command continues."), (name, problem)
        assert f"the files of hub:{repository.id} at {repository.at('main').sha} cannot be fetched" in problem
        assert time.monotonic() - began < 60 and "\n" not in problem, name
    hub.faults[:] = []
    assert ask(repository, weights=True)["problems"] == []
    assert (ask.cached(repository, repository.at("main").sha) / "model.safetensors").is_file()


def test_a_run_whose_weights_do_not_come_is_taken_up_again(
    hub: Hub, repository: Repository, kdexp: Any, tiny_csv_task: Path, tmp_path: Path
) -> None:
    command = [*toy(tiny_csv_task), f"teacher.source=hub:{repository.id}"]
    environment = hub.environment(tmp_path, HF_HUB_DOWNLOAD_TIMEOUT="1")
    hub.fail("GET /blobs/", drip=0.3)  # for hours, were it let
    done = kdexp(command, env=environment)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "Retrying" not in done.stderr, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"failed: the files of hub:{repository.id} at "), done.stderr
    assert "gives no whole answer (no further piece within 12 s (12 times HF_HUB_DOWNLOAD_TIMEOUT))" in last
    (status,) = tmp_path.glob("multirun/*/*/status.json")
    assert json.loads(status.read_text())["state"] == "failed"
    assert "Traceback" not in status.with_name("run.log").read_text()
    hub.faults[:] = []
    again = kdexp(command, env=environment)
    assert again.returncode == 0 and len(results(tmp_path)) == 1, again.stderr


DATA: list[tuple[str, dict[str, Any], str]] = [
    ("owner/closed-data", {}, f"owner/closed-data {GATED}"),
    ("owner/hidden-data", {}, "has no data set owner/hidden-data that this login may see"),
    ("owner/absent-data", {}, "has no data set owner/absent-data that this login may see"),
    ("a/b/c", {}, "data sets of the hub are called OWNER/NAME"),
    ("", {"task__hub_revision": "v9"}, "GLUE has no revision v9"),
    ("", {"task__hub_revision": "../x"}, "no branch, tag or commit is called so"),
    ("", {"task__hub_commit": "0" * 40}, "task.hub_commit is filled in by kdexp"),
]  # fmt: skip


PROMISED: list[tuple[dict[str, Any], str]] = [
    ({"task__hub_config": "rta"}, "has no configuration rta: set task.hub_config to one of ax, cola, mnli,"),
    ({"task__hub_config": None}, "has several configurations: set task.hub_config to one of ax, cola,"),
    ({"task__hub_splits": {"train": "training", "validation": "dev"}}, "has no split training, dev; it has train,"),
    ({"task__columns": ["premise", "sentence2"]}, "has no column premise; it has sentence1, sentence2, label, idx"),
    ({"task__label": "gold"}, "has no column gold; it has"),
    ({"task__label_names": ["not_entailment", "entailment"]}, "numbers its classes entailment, not_entailment"),
]  # fmt: skip


def test_what_the_card_of_data_does_not_promise(hub: Hub, repository: Repository, ask: Asker) -> None:
    glue = publish_glue(hub, id="owner/glue-card")
    for changes, words in PROMISED:
        (problem,) = ask(repository, rte=True, task__hub=glue.id, **changes)["problems"]
        assert f"task.hub={glue.id} " in problem and words in problem and problem.endswith("."), (changes, problem)
    card, parts = glue.at("main").files["README.md"].source, glue.at("main").files
    bomb = b"---\na: &a [x]\nconfigs: [*a, *a]\n---\n"
    for other in (b"", b"---\n{", bomb, b"---\n" + b"[" * 5000, b"---\nconfigs: 3\n---\n", b"\xff\xfe", card[:200]):
        glue.commit({**{name: blob.source for name, blob in parts.items()}, "README.md": other})
        assert ask(repository, rte=True, task__hub=glue.id, task__hub_config="rta")["problems"] == [], other


def test_data_of_the_hub_are_pinned_alike(hub: Hub, repository: Repository, ask: Asker) -> None:
    glue = publish_glue(hub, id="owner/glue")
    for name in ("closed", "hidden"):
        other = hub.repository(f"owner/{name}-data", "dataset")
        other.commit({"README.md": "text"})
        setattr(other, "gated" if name == "closed" else "private", True)

    def asked(set: str = glue.id, env: dict[str, str] | None = None, **changes: Any) -> Any:
        return ask(repository, env, rte=True, task__hub=set, **changes)

    for name, changes, words in DATA:
        (problem,) = asked(name or glue.id, **changes)["problems"]
        assert words.replace("GLUE", glue.id) in problem and re.fullmatch(r"[^\n]{40,500}\.", problem), problem
    for name, (fault, words) in TROUBLES.items():
        hub.faults[:] = []
        hub.fail("/api/datasets/", **fault)
        (problem,) = asked()["problems"]
        assert words in problem and problem.startswith("task.hub=owner/glue: "), name
    hub.faults[:] = []
    first, requests = glue.at("main").sha, len(hub.requests)
    assert asked(dry=True, **SIZES)["data"] is None and len(hub.requests) == requests
    assert asked()["data"] == first == asked(task__hub_revision=first)["data"]
    assert asked(dry=True)["unknown"] == ["the data of task=rte"]  # known by name, not here yet
    (off,) = asked(env=OFF)["problems"]
    assert "the hub is switched off (HF_HUB_OFFLINE=1)" in off
    glue.commit({"README.md": "news"})
    assert asked()["data"] == glue.at("main").sha != first


def toy(csv: Path) -> list[str]:
    """Overrides that make a run of a teacher of the hub a matter of seconds."""
    return [
        "teacher=hub", "teacher.name=tiny", "teacher.floor_margin=-1", "teacher.recipe.steps=2", "student=l2",
        "runtime.device=cpu", "task=local", "task.name=toy", f"task.folder={csv}", "task.label_names=[bad,good]",
        "task.columns=[text]", "recipe.steps=2", "recipe.batch_size=16", "recipe.max_length=32",
        "teacher.recipe.max_length=32", "runtime.dtype=fp32", "tracking=off",
    ]  # fmt: skip


def results(home: Path) -> dict[str, dict[str, Any]]:
    """The results below ``multirun/``, by the seed of their run."""
    found = [json.loads(path.read_text()) for path in home.glob("multirun/*/*/result.json")]
    return {f"{result['run']['study']} {result['run']['seed']}": result for result in found}


def test_the_program_names_the_commit_and_refuses_another_one(
    hub: Hub, repository: Repository, kdexp: Any, tiny_csv_task: Path, tmp_path: Path
) -> None:
    first = repository.at("main").sha
    command = [*toy(tiny_csv_task), f"teacher.source=hub:{repository.id}"]
    environment = hub.environment(tmp_path)
    done = kdexp(command, env=environment)
    assert done.returncode == 0, done.stderr
    assert f"tiny: 4 layers, 43,714 parameters (hub:{repository.id} at commit {first})" in done.stdout
    (result,) = results(tmp_path).values()
    assert result["origin"] == f"hub:{repository.id}@{first}" and result["science"]["teacher"]["revision"] is None
    assert f"teacher tiny: hub:{repository.id}@{first}" in (tmp_path / result["run"]["folder"] / "run.log").read_text()
    files = [entry.target for entry in hub.requests if entry.method == "GET"]
    assert len(files) == len(set(files)) and len(hub.requests) <= 20  # nothing is fetched twice
    hub.requests.clear()
    second = repository.commit({"README.md": "news"})
    moved = kdexp(command, env=environment)
    assert moved.returncode == 2 and "Traceback" not in moved.stderr
    assert f"(hub:{repository.id}@{first}, now hub:{repository.id}@{second})" in moved.stderr
    assert f"teacher.revision={first}" in moved.stderr
    hub.stop()
    away = kdexp([*command, "study=other"], env=environment)
    assert away.returncode == 2 and "Connection refused" in away.stderr and "Traceback" not in away.stderr
    assert not (tmp_path / "multirun" / "other").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_study_with_the_hub_from_beginning_to_end(
    hub: Hub, repository: Repository, kdexp: Any, tiny_csv_task: Path, tmp_path: Path
) -> None:
    first = repository.at("main").sha
    command = [*toy(tiny_csv_task), f"teacher.source=hub:{repository.id}"]
    environment = hub.environment(tmp_path)

    def run(*more: str, code: int = 0, **changes: str) -> tuple[str, list[str]]:
        hub.requests.clear()
        done = kdexp([*command, *more], env={**environment, **changes})
        assert done.returncode == code, (more, done.stderr)
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr, [f"{entry.method} {entry.target}" for entry in hub.requests]

    info = f"GET /api/models/{repository.id}"
    said, asked = run("dry=true", *(f"{key.replace('__', '.')}={value}" for key, value in SIZES.items()))
    assert "unknown until the hub is asked: which commit of" in said and not asked
    assert not (tmp_path / "multirun").exists()
    _, asked = run("seed=1,2", "-m")
    assert asked.count(info) == 1 and len(asked) <= 25
    keys = {result["stages"][0]["key"] for result in results(tmp_path).values()}
    assert len(keys) == 1 and len(results(tmp_path)) == 2
    said, asked = run("plan=show", "seed=1")
    assert f"at commit {first}), as the local cache has it; the hub was not asked" in said and not asked
    said, asked = run("seed=1,2,3", "-m", HF_HUB_OFFLINE="1")
    assert not asked and results(tmp_path)["adhoc 3"]["stages"][0] == {
        **results(tmp_path)["adhoc 3"]["stages"][0], "key": keys.copy().pop(), "reused": True,
    }  # fmt: skip
    _, asked = run("seed=3")
    assert asked == [info]
    second = repository.commit({"README.md": "news"})
    said, _ = run("seed=1,2,3,4", "-m", code=2)
    assert said.count(f"now hub:{repository.id}@{second}") == 3 and "adhoc 4" not in results(tmp_path)
    run("seed=4")
    fourth = results(tmp_path)["adhoc 4"]
    assert fourth["origin"].endswith(second) and not fourth["stages"][0]["reused"]
    said, _ = run("seed=1,2,3", f"teacher.revision={first}", "study=former", "-m")
    former = {name: result for name, result in results(tmp_path).items() if name.startswith("former")}
    assert len(former) == 3 and {result["origin"] for result in former.values()} == {f"hub:{repository.id}@{first}"}
    assert all(stage["reused"] for result in former.values() for stage in result["stages"])
    hub.stop()
    run("seed=5", code=2)
    run("seed=5", HF_HUB_OFFLINE="1")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_on_glue_from_the_hub(hub: Hub, repository: Repository, kdexp: Any, tmp_path: Path) -> None:
    glue = publish_glue(hub)
    first = glue.at("main").sha
    command = [a for a in toy(tmp_path) if not a.startswith("task")]
    command += ["task=rte", f"teacher.source=hub:{repository.id}"]
    environment = hub.environment(tmp_path)
    shown = kdexp([*command, "plan=show", *(f"{k.replace('__', '.')}={v}" for k, v in SIZES.items())], env=environment)
    assert shown.returncode == 0 and "and the data of task=rte" in shown.stdout and not hub.requests, shown.stderr
    done = kdexp(command, env=environment)
    assert done.returncode == 0, done.stderr
    (result,) = results(tmp_path).values()
    assert result["task"]["hub_commit"] == first and result["task"]["rows"]["validation"] == 24
    asked = len(hub.requests)
    offline = kdexp([*command, "seed=2"], env={**environment, "HF_HUB_OFFLINE": "1"})
    assert offline.returncode == 0, offline.stderr
    both = results(tmp_path)
    assert both["adhoc 2"]["task"]["hub_commit"] == first and len(hub.requests) == asked
    assert both["adhoc 2"]["stages"][0]["reused"]
    glue.commit({"README.md": "---\n" + glue.at("main").files["README.md"].source.decode().partition("---\n")[2] + "!"})
    again = kdexp(command, env=environment)  # other words about the same rows
    assert again.returncode == 0, again.stderr
    assert results(tmp_path)["adhoc 1"] == result
    hub.stop()
    away = kdexp([*command, "seed=3"], env=environment)
    assert away.returncode == 2 and away.stderr.count("Connection refused") == 1
