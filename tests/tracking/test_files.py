"""The run's own record: appended whole, read tolerantly; what goes to MLflow is a pure function of it."""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path

import pytest
from filelock import FileLock

from kdexp.config.identity import labels, science
from kdexp.config.resolve import resolve
from kdexp.config.schema import parse
from kdexp.methods.base import method
from kdexp.tracking import files
from kdexp.tracking.describe import clean, final_metrics, params_of, tags_of
from kdexp.tracking.files import Facts, MetricsFile, lines


def names(path: Path, start: int = 0) -> list[list[str] | None]:
    return [points and [p.name for p in points] for _, points in lines(path, start)]


def test_a_line_is_what_the_contract_says(tmp_path):
    file = MetricsFile(tmp_path / "metrics.jsonl")
    file.append("distill.prediction", 3, 1, {"train/loss": 0.1})
    file.close()
    record = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert list(record) == ["t", "stage", "epoch", "step", "values"]
    (end, points), *rest = lines(tmp_path / "metrics.jsonl")
    assert end == (tmp_path / "metrics.jsonl").stat().st_size
    assert not rest
    assert points == [files.Point("distill.prediction/train/loss", 0.1, 3, round(record["t"] * 1000))]


def test_a_line_cut_by_a_crash_spoils_no_other(tmp_path):
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path)
    file.append("a", 1, 0, {"x": 1})
    file.close()
    with path.open("ab") as raw:
        raw.write(b'{"t": 1.0, "stage": "a", "ste')
    assert names(path) == [["a/x"]], "a cut last line is left for later"
    again = MetricsFile(path)
    again.append("a", 2, 0, {"x": 2})
    again.close()
    assert names(path) == [["a/x"], None, ["a/x"]]


@pytest.mark.parametrize(
    "line", ["", "null", "[]", '{"t": 1}', '{"t": "x", "stage": "a", "step": 1, "values": {}}', "\0\0"]
)
def test_lines_that_are_no_records_are_skipped(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(line + "\n")
    assert names(path) == [None]


def test_threads_never_mix_lines(tmp_path):
    file = MetricsFile(tmp_path / "metrics.jsonl")

    def write(who: int) -> None:
        for step in range(200):
            file.append(f"s{who}", step, 0, {f"value{i}": i for i in range(20)})

    threads = [threading.Thread(target=write, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = names(tmp_path / "metrics.jsonl")
    assert len(found) == 800
    assert all(found)


def test_a_full_disk_is_not_swallowed():
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    file = MetricsFile(Path("/dev/full"))
    with pytest.raises(OSError):
        file.append("a", 1, 0, {"x": 1})


def test_params_are_the_science_flat_and_within_limits(config):
    config["recipe"]["note"] = "x" * 7000
    config["recipe"]["open"] = "${task.name}"
    params = params_of(config)
    assert params["objective.prediction.kd.temperature"] == "4"
    assert params["mapping"] == "uniform" and "mapping.layers" not in params, "nobody compares runs by lists of numbers"
    assert params["runtime.dtype"] == "fp32"
    assert len(params["recipe.note"]) == 6000
    assert not {"recipe.open", "study", "tracking.uri", "runtime.device"} & set(params)


def leaves(value, *path: str):
    """(dotted path, value) of everything in nested dictionaries."""
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from leaves(part, *path, str(key))
    else:
        yield ".".join(path), value


@pytest.mark.parametrize("choices", [[], ["objective=tinybert", "student=l3_sps2"], ["objective=ted", "seed=7"]])
def test_every_setting_that_decides_a_run_is_a_param(registered, choices):
    """Two runs that differ in anything but places and lists of numbers can be told apart by their params.

    What is not set is no param, and a class is known by the name beside it.
    """
    from hydra import compose, initialize_config_dir

    from kdexp.cli import main

    main.resolvers()
    with initialize_config_dir(main.CONFIG_PATH, version_base="1.3"):
        config = resolve(compose("config", [*choices, "data.heldout=0.25", "data.root=/somewhere"]))
    params = params_of(config)
    deciding = science(config)
    assert params.pop("runtime.dtype") == deciding.pop("dtype")
    short = labels(parse(config, method(config["objective"]["method"]).Settings)[0])
    assert {name: params.pop(name) for name in short} == short and len(short) == 6
    assert params.pop("seed") == str(deciding.pop("seed"))
    told = {
        path: v if isinstance(v, str) else json.dumps(v)
        for path, v in leaves(deciding)
        if v is not None and v != {} and "_target_" not in path.split(".") and path not in {f"{g}.name" for g in short}
        and not (isinstance(v, list) and all(isinstance(one, int | float) for one in v))
    }  # fmt: skip
    assert params == told
    assert params["data.heldout"] == "0.25"
    assert "data.root" not in params


def test_no_config_means_no_params():
    assert params_of({}) == {}
    assert params_of({"runtime": {"dtype": "bf16"}, "mapping": {}}) == {"mapping": "none", "runtime.dtype": "bf16"}


def test_names_suit_mlflow():
    assert clean("distill.prediction/train/loss") == "distill.prediction/train/loss"
    assert clean("a//b[1]?/") == "a/b_1__"
    assert clean("../a/./b") == "_/a/_/b"
    assert clean("") == "_"
    assert len(clean("x" * 300)) == 250


def test_an_unfinished_run_has_no_final_metrics():
    assert final_metrics({}) == {}
    assert final_metrics({"scores": None, "teacher": None, "cost": {"seconds": "x"}}) == {}


def test_state_of_a_run_whose_process_is_gone(run_dir, finish):
    finish(run_dir, "running")
    assert Facts(run_dir).state == "interrupted"
    finish(run_dir, "running", pid=os.getpid())
    assert Facts(run_dir).state == "running"
    (run_dir / ".lock").touch()
    assert Facts(run_dir).state == "interrupted", "the number belongs to another process: nobody holds the lock"
    with FileLock(run_dir / ".lock"):
        assert Facts(run_dir).state == "running"
    finish(run_dir, "running", host=f"not-{socket.gethostname()}")
    assert Facts(run_dir).state == "interrupted"


def test_facts_of_a_run_come_from_its_folder(run_dir, finish, config):
    finish(run_dir, "failed", config, error="ValueError: no")
    tags = tags_of(Facts(run_dir))
    assert tags["kdexp.study"] == "toy"
    assert tags["kdexp.hash"] == "cccccccc"
    assert tags["kdexp.status"] == "failed"
    assert tags["kdexp.error"] == "ValueError: no"
    assert {tags[f"kdexp.{g}"] for g in ("teacher", "student", "objective")} == {"big", "l3", "kd"}
    (run_dir / ".hydra" / "config.yaml").write_text("a: [")
    assert Facts(run_dir).config == {}, "a damaged config costs the params, not the metrics"


def test_a_finished_run_names_the_commits_of_the_hub(run_dir, finish, config):
    finish(run_dir, "finished", config)
    said = json.loads((run_dir / "result.json").read_text())
    said |= {"origin": "hub:owner/model@" + "a" * 40, "task": {**said["task"], "hub_commit": "b" * 40}}
    (run_dir / "result.json").write_text(json.dumps(said))
    tags = tags_of(Facts(run_dir))
    assert (tags["kdexp.origin"], tags["kdexp.hub_commit"]) == (said["origin"], "b" * 40)
    (run_dir / "result.json").write_text(json.dumps({**said, "task": {**said["task"], "hub_commit": None}}))
    assert "kdexp.hub_commit" not in tags_of(Facts(run_dir))
