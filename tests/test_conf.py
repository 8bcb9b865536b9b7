"""Rules of ``conf/``: every key is explained, a choice says only what differs, bases are no choices."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache, reduce
from operator import getitem
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdexp.config import choices
from tests.test_repository import ROOT, expect_none, place

CONF = ROOT / "conf"
FILES = sorted(CONF.rglob("*.yaml"))
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
Place = tuple[str, ...]


def named(path: Path) -> str:
    """A file's place below ``conf/``."""
    return path.relative_to(CONF).as_posix()


def settings(
    node: yaml.Node | None, lines: list[str], told: bool = False, above: Place = ()
) -> Iterator[tuple[int, Place, bool]]:
    """(line, place, explained) of the settings in ``node``.

    A setting is a key with a value of its own; the comment stands on the line above or behind it. ``told``: a comment
    also covers the lines and the level right below it, as in the deltas of ``experiment/`` and ``debug/``, whose keys
    are explained where they are defined.
    """
    if not isinstance(node, yaml.MappingNode):
        return
    covered = False
    for key, value in node.value:
        line, at = key.start_mark.line, (*above, key.value)
        before = lines[line - 1].strip() if line else ""
        explained = (before.startswith("#") and "@package" not in before) or bool(re.search(r"\s#\s*\w", lines[line]))
        covered = explained or (told and covered and bool(before))
        if key.value == "defaults" or (covered and told):
            continue
        if isinstance(value, yaml.MappingNode) and value.value and not (value.flow_style and (explained or told)):
            yield from settings(value, lines, told, at)
        else:
            yield line + 1, at, explained


@cache
def written(path: Path) -> list[tuple[int, Place, bool, Any]]:
    """(line, place, explained, value) of the settings in a file."""
    content = path.read_text(encoding="utf-8")
    node, values = yaml.compose(content, Loader=LOADER), yaml.load(content, Loader=LOADER)
    found = settings(node, content.splitlines(), path.parent.name in ("experiment", "debug"))
    return [(line, at, explained, reduce(getitem, at, values)) for line, at, explained in found]


def bases(path: Path) -> Iterator[tuple[Path, Place]]:
    """The files that one builds on by its defaults, each with the place where its keys are put."""
    for entry in (yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER) or {}).get("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            name, _, package = entry.partition("@")
            yield path.parent / f"{name}.yaml", tuple(package.split(".")) if package else ()
        elif isinstance(entry, dict):
            [(group, options)] = entry.items()
            if re.fullmatch(r"\w+", group):  # no override
                for option in options if isinstance(options, list) else [options]:
                    yield path.parent / group / f"{option}.yaml", (group,)


@cache
def inherited(path: Path) -> dict[Place, tuple[bool, Any]]:
    """What a file's bases say: place -> (explained somewhere, value)."""
    found: dict[Place, tuple[bool, Any]] = {}
    for base, above in bases(path):
        for at, said in inherited(base).items():
            found[(*above, *at)] = said
        for _, at, explained, value in written(base):
            before, _ = found.get((*above, *at), (False, None))
            found[(*above, *at)] = explained or before, value
    return found


@pytest.mark.parametrize("path", FILES, ids=named)
def test_every_setting_is_explained(path: Path):
    """By the file itself, or by one that it builds on (``defaults: [_base, _self_]``)."""
    known = {at for at, (explained, _) in inherited(path).items() if explained}
    found = [
        f"{place(path, line)}: {'.'.join(at)}"
        for line, at, explained, _ in written(path)
        if not explained and not any(at[:n] in known for n in range(1, len(at) + 1))
    ]
    expect_none(found, "each setting has a comment above or behind it, in this file or in its base")


@pytest.mark.parametrize("path", FILES, ids=named)
def test_a_choice_says_only_what_differs(path: Path):
    known = inherited(path)
    found = [
        f"{place(path, line)}: {'.'.join(at)}"
        for line, at, explained, value in written(path)
        if not explained and at in known and known[at][1] == value
    ]
    expect_none(found, "the base says so already")


@pytest.mark.parametrize("path", FILES, ids=named)
def test_every_file_opens_with_what_it_is(path: Path):
    head = [line for line in path.read_text(encoding="utf-8").splitlines() if "@package" not in line]
    assert re.match(r"# \w", head[0])


@pytest.mark.parametrize("path", sorted((CONF / "experiment").glob("*.yaml")), ids=lambda p: p.stem)
def test_studies_open_with_their_command(path: Path):
    head = [line for line in path.read_text(encoding="utf-8").splitlines()[:4] if "@package" not in line]
    assert head[0].startswith("#")
    assert f"python -m kdexp +experiment={path.stem}" in head[0]


NO_TERMS = (
    "arriving",
    "aid", "assistant", "clkd", "continuation", "dist", "dkd", "ensemble", "finetune", "ikd", "jsd", "kd", "ld",
    "lgtm", "logistic_ranking", "margin_mse", "multilabel_kl", "rank_mimic", "response", "reverse_kl", "score_kl",
    "standard_kl", "temperature_kl", "total_variation", "unbiased", "embeddings", "embeddings_scores", "teachers",
)  # fmt: skip
OTHER_TERMS = {
    "att_kl_hid_seq": {"att_kl", "hid_seq"},
    "att_kl_val_kl": {"att_kl", "val_kl"},
    "att_mse_hid_seq": {"att_mse", "hid_seq"},
    "continual_ted": {"ted"},
    "distilbert": {"hidden_cosine"},
    "ernie_tiny": {"att_mse", "hid_seq"},
    "pkd": {"patience"},
    "tinybert": {"att_mse", "hid_seq"},
}
"""Terms of the objectives that have other ones than that of their own name."""


def test_mappings_inherit_no_entries():
    """Hydra merges mappings: a base with a term or a split in it would bring it into every choice."""
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(CONF), version_base="1.3"):
        for name in choices.names(CONF / "objective"):
            found = set(compose(f"objective/{name}").objective.intermediate)
            none = name in NO_TERMS or name.startswith(("agnostic_", "continual_"))  # all theirs under prediction
            expected = OTHER_TERMS.get(name, set() if none else {re.sub("pro_kd_.*", "pro_kd", name)})
            assert found == expected, name
        for name in choices.names(CONF / "task"):
            more = {"mnli": {"validation_mismatched"}, "sst2_test": {"validation_glue"}}.get(name, set())
            files = compose(f"task/{name}").task.get("files", {"train": "", "validation": ""})
            assert set(files) == {"train", "validation"} | more, name


def test_help_lists_all_choices_and_no_base(kdexp):
    page = kdexp(["--help"]).stdout
    said = re.findall(r"^([a-z/]+)=\n((?:  .*\n)+)", page, re.M)
    shown = {group: re.findall(r"^  (\w+)  +(\S.*)$", lines, re.M) for group, lines in said}
    groups = {path.parent for path in FILES if path.relative_to(CONF).parts[0] not in ("hydra", "config.yaml")}
    expected = {group.relative_to(CONF).as_posix(): choices.names(group) for group in groups}
    assert {group: [name for name, _ in rows] for group, rows in shown.items()} == expected
    described = dict(shown["objective"])
    assert described["kd"].startswith("Vanilla KD: soft and hard labels at the")
    assert dict(shown["experiment"])["capacity_gap"] == "Is a larger teacher a better one?"  # no command line
    assert max(map(len, page.splitlines())) <= 80
    for words in ("Grids", "\n  exclude  ", "Verbs", "\n  tables  ", "\n  --config-dir DIR  ", "A whole study"):
        assert words in page


@pytest.mark.parametrize(
    "arguments",
    [
        ["task=_base"],
        ["task=_text", "--cfg", "job"],
        ["+task='_base'"],
        ["-m", "task=rte,_glue", "dry=true"],
        ["recipe@teacher.recipe=_base"],
        ["objective=att_kl", "objective/intermediate=[att_kl,_base]"],
    ],
    ids=" ".join,
)
def test_a_base_cannot_be_chosen(kdexp, arguments):
    done = kdexp(arguments)
    assert done.returncode == 2
    assert re.search(r"there is no _\w+ in [\w/@.]+; choose one of: [a-z]", done.stderr)
    assert not re.search(r"\b_", done.stderr.partition("choose one of")[2])


def test_a_sweep_over_all_choices_takes_no_base(kdexp):
    done = kdexp(["-m", "student=glob(*,exclude=own)", "init=random", "dry=true"])
    assert done.returncode == 0, done.stderr
    assert f"{len(choices.names(CONF / 'student')) - 1} runs" in done.stdout  # own is for init=own
    done = kdexp(["-m", "student=l2,l22", "dry=true"])
    assert done.returncode == 2
    assert "l12 l12_w256 l1_sps1" in done.stderr and "_base" not in done.stderr
