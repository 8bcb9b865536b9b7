"""Composition by parts must equal Hydra's own composition, point for point."""

from __future__ import annotations

import importlib.util
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.types import RunMode
from omegaconf import OmegaConf

from kdexp.cli import main
from kdexp.sweep import plugins
from kdexp.sweep.compose import Composer, CompositionError

HERE = Path(__file__).parent
REAL = HERE.parents[1] / "conf"


@pytest.fixture
def loader() -> Iterator[Any]:
    Plugins.instance()
    plugins.register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(HERE / "conf"), version_base="1.3"):
        found = GlobalHydra.instance().config_loader()
        found.config_search_path.append("real", f"file://{REAL}")
        found.repository.initialize_sources(_before_schema(found.config_search_path))
        yield found


def _before_schema(path: Any) -> Any:
    """Hydra wants the schema to be the last place it looks."""
    places = path.get_path()
    places.append(places.pop(-2))
    return path


def both(loader: Any, points: list[list[str]]) -> None:
    """Compose all points both ways and compare."""
    master = loader.load_configuration("config", [], RunMode.MULTIRUN)
    composer = Composer(loader, master)
    for point in points:
        whole = loader.load_sweep_config(master, point)
        choices = dict(whole.hydra.runtime.choices)
        plain = OmegaConf.to_container(whole, resolve=False)
        plain.pop("hydra")
        composed = composer.compose(point)
        assert OmegaConf.to_container(composer.tree, resolve=False) == {key: plain[key] for key in composer.tree}
        assert composed.config == data(whole)
        assert composed.choices == choices


def data(whole: Any) -> Any:
    """A configuration of Hydra's as a run gets it."""
    return OmegaConf.to_container(OmegaConf.masked_copy(whole, [k for k in whole if k != "hydra"]), resolve=True)


@pytest.fixture
def shipped() -> Iterator[Any]:
    """The loader of the program's own configuration."""
    main.resolvers()
    Plugins.instance()
    plugins.register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(main.CONFIG_PATH, version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


SHIPPED = [
    ["task=rte", "objective=kd", "init=first", "seed=1"],
    ["task=rte", "objective=hid_seq", "init=last", "seed=2"],
    ["task=mrpc", "objective=hid_seq", "init=last", "recipe.epochs=7", "seed=2"],
    ["task=mrpc", "recipe=howto", "seed=3"],
    ["task=cola", "recipe=howto", "recipe.batch_size=8", "seed=3"],
    ["task=rte", "recipe=howto", "seed=4"],
    ["task=qnli", "recipe=default", "seed=4"],
    ["objective=kd", "objective/prediction=pkd", "task=rte"],
    ["objective=kd", "objective/prediction=ted", "task=mrpc"],
    ["objective=hid_seq", "objective/prediction=kd", "task=rte", "objective.prediction.kd.temperature=9"],
    ["teacher=bert_base", "recipe@teacher.recipe=default", "teacher.recipe.epochs=2"],
    ["teacher=minilm_l6", "recipe@teacher.recipe=default"],
    ["teacher=bert_base", "recipe@teacher.recipe=teacher", "student=l6", "mapping=skip"],
    ["+student.extra=3", "task=rte", "init=last", "student=l2"],
    ["+student.extra=3", "task=cola", "init=first", "student=l6", "student.extra=5"],
    ["++seed=5", "~recipe.epochs", "task=rte"],
    ["recipe.epochs=4", "~recipe.epochs", "task=rte"],
    ["recipe={epochs: 9}", "init=layers_1_4_6", "init.name=mine"],
    ["objective={name: none}", "student.name='a b'", "selection=last"],
    ["+debug=smoke", "task=rte", "init=last", "seed=8"],
    ["+debug=smoke", "task=mrpc", "init=first", "seed=9"],
    ["+experiment=ted_glue", "task=rte", "objective=kd"],
    ["+experiment=ted_glue", "task=mrpc", "objective=hid_seq", "seed=2"],
    ["data.root=elsewhere", "runtime.store=there", "task=rte"],
    ["task=rte", "objective=kd", "init=first", "seed=1"],
]


def test_points_of_the_shipped_configuration(shipped: Any) -> None:
    both(shipped, SHIPPED)


def grid(axes: dict[str, list[str]]) -> list[list[str]]:
    return [[f"{k}={v}" for k, v in zip(axes, row, strict=True)] for row in itertools.product(*axes.values())]


def test_groups_and_values(loader: Any) -> None:
    axes = {"init": ["first", "last"], "objective": ["kd", "att"], "recipe.epochs": ["3", "5"], "seed": ["1", "2"]}
    both(loader, grid(axes))


def test_interpolations_see_the_values_of_their_own_point(loader: Any) -> None:
    points = grid({"recipe": ["long", "quick"], "seed": ["1", "4"]})
    both(loader, points)
    composer = Composer(loader, loader.load_configuration("config", [], RunMode.MULTIRUN))
    found = []
    for point in points:
        found.append(composer.compose(point).config["recipe"]["epochs"])
    assert found == [1, 4, 3, 3]


def test_a_group_that_writes_into_others_is_composed_in_full(loader: Any) -> None:
    both(loader, grid({"mapping": ["auto", "meddling"], "objective": ["kd", "att"], "seed": ["1"]}))
    both(loader, grid({"objective": ["kd", "att"], "recipe": ["quick", "meddling"]}))  # it comes after the objective
    axes = {"objective": ["kd", "att"], "mapping": ["meddling", "auto"], "objective.temperature": ["1", "3"]}
    both(loader, grid(axes))


def test_added_groups_missing_keys_and_deletions(loader: Any) -> None:
    odd = ["student={name: odd}"]
    both(loader, [["debug=smoke", "init=last"], ["init=first"], ["+extra=1"], ["~student.num_layers"], odd, ["seed=2"]])
    both(loader, [["init=first"], ["debug=smoke", "recipe=long"], ["+experiment=plain", "seed=3"]])


def test_choices_that_are_made_from_bases(loader: Any) -> None:
    """Several terms in one group, groups within a choice, and choices that lack them."""
    objectives = ["att", "att_kl_hid_seq", "kd", "tinybert", "ted", "lgtm", "pro_kd_final"]
    both(loader, grid({"objective": objectives, "seed": ["1", "2"]}))
    both(loader, grid({"objective": objectives[::-1], "student": ["small", "l2_sps1"]}))
    both(loader, grid({"objective": ["tinybert", "pkd"], "objective/intermediate": ["hid_cls", "[att_kl,hid_seq]"]}))
    both(loader, grid({"task": ["mnli", "alpha", "rte"], "init": ["last", "layers_1_4_6"]}))
    terms = "objective/intermediate=[att_kl,hid_seq]"
    both(loader, [["objective=att_kl", terms], ["objective=kd"], ["objective=hid_cls"], ["objective=hid_cls", terms]])


def test_a_base_is_no_choice(loader: Any) -> None:
    composer = Composer(loader, loader.load_configuration("config", [], RunMode.MULTIRUN))
    terms = "objective/intermediate=[att_kl,_base]"
    for wrong in (["task=_glue"], ["objective=att_kl", "objective/prediction=_base"], ["objective=att_kl", terms]):
        with pytest.raises(CompositionError, match=f"{re.escape(wrong[-1])}: there is no _"):
            composer.compose(wrong)


def test_errors_name_the_value_and_leave_the_next_point_whole(loader: Any) -> None:
    master = loader.load_configuration("config", [], RunMode.MULTIRUN)
    composer = Composer(loader, master)
    for wrong in (["init=frist"], ["seed=3", "recipe.epoch=2"], ["nonsense=1"]):
        with pytest.raises(CompositionError, match=wrong[-1].split("=")[0].split(".")[-1]):
            composer.compose(wrong)
        config = composer.compose(["init=last"]).config
        assert (config["seed"], config["init"]["name"]) == (1, "last")


EXTRAS = {"ray": "ray", "submitit": "slurm"}


def test_every_shipped_sweeper_and_launcher_file_is_registered() -> None:
    for path in (REAL / "hydra" / "sweeper").glob("*.yaml"):
        assert OmegaConf.load(path)["_target_"] in plugins.SWEEPERS
    for path in (REAL / "hydra" / "launcher").glob("*.yaml"):
        settings = OmegaConf.to_container(OmegaConf.load(path))
        if path.stem in EXTRAS and importlib.util.find_spec(path.stem) is None:
            with pytest.raises(ValueError, match=f"kdexp.{EXTRAS[path.stem]}"):
                plugins.make_launcher(settings)
        else:
            assert plugins.make_launcher(settings) is not None


def test_foreign_launchers_and_unknown_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="one of kdexp's"):
        plugins.make_launcher({"_target_": "os.system"})
    with pytest.raises(ValueError, match="is no launcher"):
        plugins.make_launcher({"_target_": "kdexp.launch.child.work"})
    with pytest.raises(ValueError, match="slot"):
        plugins.make_launcher({"_target_": "kdexp.launch.local.Local", "slot": 3})


def test_a_package_of_one_s_own_may_bring_a_launcher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "my_cluster.py").write_text(
        "from kdexp.launch.base import Launcher\n"
        "class Mine(Launcher):\n    def __init__(self, slots):\n        self.slots = slots\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    node = {"_target_": "my_cluster.Mine", "slots": 3}
    with pytest.raises(ValueError, match="is not allowed"):
        plugins.make_launcher(node)
    monkeypatch.setenv("KDEXP_TARGETS", "my_cluster")
    assert plugins.make_launcher(node).slots == 3


def test_what_forked_runs_have_loaded_before_is_there() -> None:
    from kdexp.launch.preload import MODULES

    assert [name for name in MODULES if importlib.util.find_spec(name) is None] == []


@pytest.mark.parametrize("argument", ["+experiment=a,b", "experiment=a,b,c", "+experiment=glob(*)"])
def test_sweeping_experiments_is_refused(argument: str) -> None:
    assert "would be lost" in (plugins.experiment_sweep(["seed=1,2", argument]) or "")


def test_one_experiment_is_fine() -> None:
    assert plugins.experiment_sweep(["+experiment=a", "seed=1,2"]) is None
