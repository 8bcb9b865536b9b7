"""The search in the report: real Optuna studies, read and never written to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from analysis import report, search
from analysis.collect import collect
from kdexp.sweep.search.optimise import Search
from kdexp.sweep.search.settings import Settings
from kdexp.sweep.search.space import Dimension
from tests.analysis.test_report import outline

SPACE = [
    Dimension("recipe.learning_rate", "recipe.learning_rate", "float", 1e-5, 1e-3, log=True),
    Dimension("pkd_mapping", "mapping", "categorical", choices=("skip", "<b>last</b>")),
]


def searched(root: Path, trials: int = 8, **settings: Any) -> Path:
    """A study ``quickstart`` with a search in which every fourth trial was pruned."""
    folder = root / "quickstart"
    found = Search(folder, Settings(n_trials=trials, **settings), SPACE, {}.get)
    while (taken := found.take()) is not None:
        trial, values = taken
        score = 1000 * values["recipe.learning_rate"]
        several = len(found.settings.metrics) > 1
        for step in () if several else (1, 2):
            trial.report(score * step / 2, step)
        pruned = not several and trial.number % 4 == 3
        found.tell(trial, [score, 1000.0 * (trial.number + 1)] if several else [score], pruned)
    found.close()
    return folder


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("storage", ["journal", "sqlite"])
def test_a_search_is_shown_and_left_alone(study: Path, storage: str, capsys: pytest.CaptureFixture[str]) -> None:
    url = None if storage == "journal" else f"sqlite:///{study}/optuna.db"
    folder = searched(study, pruner="median", storage=url)
    before = {**stamps(folder), **stamps(folder / ".optuna"), **stamps(study)}
    assert search.main(["quickstart", f"root={study}", "figures=no", "json=true"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told) == {"folder", "importance", "figures", "written"} and set(told["importance"]) == {"score"}
    assert set(told["importance"]["score"]) == {"recipe.learning_rate", "pkd_mapping"}
    text = report.page(collect("quickstart", study, "folders"))
    assert {**stamps(folder), **stamps(folder / ".optuna"), **stamps(study)} == before
    found = outline(text)
    assert len(found.ids) == len(set(found.ids)) and not found.loaded
    assert "#search" in found.links and "Best trial" in text
    assert "8 of 8 trials (6 complete, 2 pruned): maximize score; sampler tpe, pruner median." in text
    part = text[text.index('<section id="search">') : text.index('<section id="claims">')]
    assert "recipe.learning_rate=" in part and "mapping=" in part and "<b>last" not in part
    top = max((float(row[2]), row[0]) for row in search.section(folder, report.inline)["trials"] if row[2])
    assert f"Trial {top[1]}, score {top[0]}: <code>recipe.learning_rate=" in part
    assert ">pkd_mapping</text>" in part and ">learning_rate</text>" in part  # names that a figure has room for
    assert part.count("<svg") == 4  # history, parallel coordinates, importances, intermediate values
    assert part.count("<tr>") == 9


def test_several_metrics_have_their_front(study: Path) -> None:
    folder = searched(study, metrics=("score", "student.parameters"), directions=("maximize", "minimize"))
    found = search.section(folder, report.inline)
    assert found is not None and found["several"]
    values = [float(row[2]) for row in found["trials"]]
    front = [n for n, value in enumerate(values) if all(value > other for other in values[:n])]  # the size only grows
    assert sorted(one["number"] for one in found["best"]) == front
    captions = " ".join(figure["caption"] for figure in found["figures"])
    assert "Trials by score and student.parameters" in captions and "complete trial's student.parameters" in captions


def test_studies_without_a_search_and_lost_ones(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert search.section(study / "quickstart", report.inline) is None
    folder = searched(study, trials=1)
    found = search.section(folder, report.inline)
    assert found is not None and found["figures"] == [] and len(found["trials"]) == 1
    (folder / "optuna.journal").unlink()
    assert report.main(["study=quickstart", f"root={study}", "source=folders"]) == 2
    assert "optuna.journal is gone" in capsys.readouterr().err
    (study / "empty.db").touch()
    with pytest.raises(ValueError, match=r"cannot be read from sqlite:///.*empty\.db"):
        search.section(folder, report.inline, f"sqlite:///{study}/empty.db")


def test_importances_are_about_the_best_trials() -> None:
    import optuna

    shares = search.shares
    up, down = (optuna.create_study(direction=way) for way in ("maximize", "minimize"))
    kind = {name: optuna.distributions.FloatDistribution(0, 1) for name in "ab"}
    for n in range(60):
        a, b = n % 10 / 10, n * 7 % 60 / 60
        score = b if a > 0.8 else -1 - a / 100  # a decides whether a trial is good, and hardly how bad it is
        for study, value in ((up, score), (down, -score)):
            study.add_trial(optuna.trial.create_trial(value=value, params={"a": a, "b": b}, distributions=kind))
    assert shares(up) == shares(down) == optuna.importance.get_param_importances(up)
    assert shares(up)["a"] > 0.6
