"""The documentation: every key of ``conf/`` has a line, every study its command; extras, pins and links hold."""

from __future__ import annotations

import importlib.util
import re
import sys
import tomllib
from functools import cache
from types import ModuleType

import pytest

from tests.test_conf import CONF, FILES, named, written
from tests.test_repository import ROOT, expect_none


@cache
def pages() -> ModuleType:
    """``docs/pages.py``, which is no package."""
    spec = importlib.util.spec_from_file_location("docs_pages", ROOT / "docs" / "pages.py")
    assert spec and spec.loader
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def page_of(group: str) -> str:
    return pages().group_page(group)


def test_every_key_has_a_line_with_a_meaning():
    found = []
    for path in FILES:
        group = path.parent.relative_to(CONF).as_posix()
        if group in (".", "experiment", "hydra"):
            continue
        section = page_of(group).partition(f"{{ #{path.stem} }}")[2].partition("\n## ")[0]
        for _, at, _, _ in written(path):
            key = ".".join(at) if group == "debug" else ".".join((*group.split("/"), *at))
            line = re.search(rf"^\| <code>{re.escape(key)}</code> \|.*\| (.*) \|$", section, re.MULTILINE)
            if line is None or (group != "debug" and not line[1].strip()):
                found.append(f"{named(path)}: {key}")
    expect_none(found, "each key stands in its page, with what its comment says")


def test_keys_of_no_group_and_every_group_have_a_page():
    top = pages().top_page()
    for _, at, _, _ in written(CONF / "config.yaml"):
        assert at[0] == "hydra" or f"<code>{'.'.join(at)}</code>" in top
    folders = {path.parent.relative_to(CONF).as_posix() for path in FILES} - {".", "experiment", "hydra"}
    assert folders == set(pages().GROUPS)
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    expect_none([place for place in pages().generated() if place not in menu], "pages that no menu names")


def test_every_study_tells_its_command():
    gallery = pages().studies_page()
    for path in (CONF / "experiment").glob("*.yaml"):
        section = gallery.partition(f"{{ #{path.stem} }}")[2].partition("\n## ")[0]
        assert f"+experiment={path.stem}" in section, path.stem
        assert "\nResult: " in section


def test_comments_are_read_where_they_stand(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(
        "# What it is. And more.\n\n# One\n# thing.\na: 1\nb:\n  # Inner | part.\n  c: [1, x]\nd: 2  # behind\n"
    )
    assert pages().summary(path) == "What it is."
    assert [(s.key, s.value, s.comment) for s in pages().settings(path)] == [
        ("a", "1", "One thing."), ("b.c", "[1, x]", "Inner | part."), ("d", "2", "behind"),
    ]  # fmt: skip
    assert "Inner \\| part." in "\n".join(pages().table(pages().settings(path), "g.", path))


def test_the_tour_shows_the_table_of_the_readme():
    readme, tour = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/tour.md"))
    rows = re.findall(r"^\| (?:objective|majority|teacher|finetune|kd) .*\|$", readme, re.MULTILINE)
    assert len(rows) == 9 and all(row in tour for row in rows)
    claims = re.findall(r"Effect [^;]+", " ".join(readme.replace("\n> ", " ").split()))
    assert len(claims) == 2 and all(claim in " ".join(tour.replace("\n> ", " ").split()) for claim in claims)


def test_extras_are_named_in_one_table():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    table = (ROOT / "docs" / "installation.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(project["optional-dependencies"])


def test_the_documentations_lock_is_exact():
    lines = (ROOT / "docs" / "requirements.lock").read_text(encoding="utf-8").splitlines()
    assert all(re.fullmatch(r"[\w.-]+==[\w.!]+", line) for line in lines) and len(lines) == len(set(lines))


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", "SECURITY.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_links_lead_somewhere(name: str):
    """On disk and on a code host; `make docs` looks at those of the site, anchors included."""
    made = {f"docs/{place}" for place in pages().generated()}
    found = []
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", (ROOT / name).read_text(encoding="utf-8")):
        if re.match(r"\w+:", target):
            continue
        place = ((ROOT / name).parent / target).resolve()
        if not place.exists() and place.relative_to(ROOT).as_posix() not in made:
            found.append(target)
    expect_none(found, f"links of {name}")


def test_the_readme_counts_its_papers():
    """The papers of methods.md by their arXiv numbers; some have none there."""
    papers = set(re.findall(r"\b\d{4}\.\d{4,5}\b", (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")))
    assert "more than thirty papers" in (ROOT / "README.md").read_text(encoding="utf-8") and 30 < len(papers) < 40
