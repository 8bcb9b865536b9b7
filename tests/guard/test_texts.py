"""Labels that mean something to a terminal, a format or a spreadsheet come out as the texts that they are."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt

from analysis import curves, figures, render, report, tables
from analysis.collect import Collected, collect
from analysis.grid import Grid, build
from tests.analysis.synthetic import make_result, write_points, write_run

NASTY = (
    "a$\\frac{$b",
    "$x^2$",
    "\\",
    "a\\",
    "a|b",
    "=1+1",
    "+1",
    "-1+1",
    "@SUM(A1)",
    "\t=1",
    "<b>x</b>",
    "<script>alert(1)</script>",
    "&lt;",
    "100%",
    "#x",
    "a_b_c",
    "_x_",
    "{",
    "}",
    "~^",
    "[10pt]",
    "*",
    "**x**",
    "`x`",
    "[x](http://evil)",
    "![x](x)",
    "a\nb",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "\x9b31m",
    "a\u202eb",
    "\r\n",
    "a\x00b",
    "\u2028",
    "%\\input{x}",
    "'",
    '"',
    "½ µ 研究",
)
STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study whose objectives and inits are all nasty."""
    root = tmp_path_factory.mktemp("nasty")
    results = []
    for number, label in enumerate(NASTY):
        for seed in (0, 1):
            name = f"r{number}s{seed}"
            result = make_result("nasty", "rte", label, NASTY[-(number % 6) - 1], seed, run__name=name)
            results.append(result)
            folder = write_run(root, result)
            values = {"selection/accuracy": 0.5, "train/$a_{": 0.1}
            lines = [{"t": 1.0, "stage": "distill", "epoch": 1, "step": step, "values": values} for step in (1, 2, 3)]
            (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    write_points(root, "nasty", results)
    return root


@pytest.fixture(scope="module")
def found(nasty: Path) -> Collected:
    """The study, collected."""
    return collect("nasty", nasty, "folders")


@pytest.fixture(scope="module")
def grid(found: Collected) -> Grid:
    """Its table."""
    return build(found)


def labels(grid: Grid) -> Iterator[tuple[str, ...]]:
    """The labels of its rows as a reader shall see them."""
    for row in grid.rows:
        yield tuple(map(render.one_line, row.labels))


def test_the_study_has_every_label(grid: Grid):
    assert {label for row in grid.rows for label in row.labels} >= set(NASTY)


def test_markdown(grid: Grid):
    text = render.markdown(grid)
    assert not STEERING.search(text)
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    page = Page(html)
    assert not page.tags & {"b", "script", "a", "img", "code", "em", "i"}, page.tags
    assert [tuple(row[:2]) for row in page.rows[1:]] == [tuple(words) for words in labels(grid)]


def test_html(grid: Grid):
    page = Page(render.html(grid))
    assert not page.tags & {"b", "script", "a", "img"} and not STEERING.search(render.html(grid))
    assert [tuple(row[:2]) for row in page.rows[1:]] == [tuple(words) for words in labels(grid)]


def test_report(found: Collected):
    text = report.page(found)
    page = Page(text)
    assert not STEERING.search(text)
    assert page.scripts == [one for one in page.scripts if "alert" not in one] and "img" not in page.tags
    assert all(link.startswith(("#", "http://127.0.0.1")) for link in page.links), page.links


def test_csv_is_text_and_numbers(grid: Grid):
    text = render.csv(grid.frame())
    assert not STEERING.search(text.replace("\r\n", "\n"))
    rows = [*csv.DictReader(io.StringIO(text))]
    for row in rows:
        for key, value in row.items():
            if value[:1] in ("=", "+", "-", "@"):
                assert math.isfinite(float(value)), (key, value)
    means = [float(row["mean"]) for row in rows]
    assert means == [cell.mean for r in grid.rows for cell in (*r.cells, r.average) if cell is not None]
    assert {row["objective"] for row in rows} >= {"'=1+1", "+1", "'-1+1", "'@SUM(A1)", "a|b"}


def test_latex(grid: Grid):
    text = render.latex(grid)
    assert not STEERING.search(text)
    begin = text.index("\\begin{tabular}")
    assert all(line.startswith("%") for line in text[:begin].splitlines())
    columns = (
        text[begin:].splitlines()[0].count("l")
        - "\\begin{tabular}".count("l")
        + text[begin:].splitlines()[0].count("r")
    )
    body = [line for line in text[begin:].splitlines()[1:] if line.endswith(r"\\")]
    assert len(body) == len(grid.rows) + 1
    for line in body:
        bare = re.sub(r"\\[&%$#_{}\\]|\\[a-zA-Z]+", "", line)  # without escaped signs and commands
        assert bare.count("&") == columns - 2 + (columns - bare.count("&") == 1) or bare.count("&") > 2
        assert not re.search(r"[%#~_]", bare) and bare.count("{") == bare.count("}")
        assert bare.count("$") % 2 == 0 and not line.startswith(("[", "*"))
        for mathematics in re.findall(r"\$([^$]*)\$", bare):
            assert mathematics in ("", "<", ">", "|", "^{}"), mathematics


def test_figures_draw_every_label_as_it_is(found: Collected, grid: Grid, tmp_path: Path):
    history = curves.histories(found)
    drawn = [figures.heat_map(grid), figures.dots(grid), curves.learning_curves(found, history)]
    drawn.append(curves.matching_losses(found, history))
    for number, figure in enumerate(drawn):
        assert figure is not None
        svg, _ = figures.save(figure, tmp_path / str(number))
        texts = [
            "".join(node.itertext()).strip() for node in ElementTree.parse(svg).iter() if node.tag.endswith("}text")
        ]
        if number < 2:
            wanted = {render.one_line(label) for label in NASTY} - {""}
            assert wanted <= set(texts), sorted(wanted - set(texts))


def test_a_figure_is_broken_by_a_label_that_is_not_escaped():
    from matplotlib.figure import Figure

    figure = Figure()
    figure.text(0, 0, "a$\\frac{$b")
    with pytest.raises(ValueError):
        figure.savefig(io.BytesIO())


def test_the_terminal(nasty: Path):
    done = subprocess.run(
        [sys.executable, "-m", "analysis.tables", "study=nasty", f"root={nasty}", "source=folders"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    assert not STEERING.search(done.stdout + done.stderr)
    for path in (nasty / "nasty" / "tables").iterdir():
        assert not STEERING.search(path.read_text(encoding="utf-8").replace("\r\n", "\n")), path


def test_wrong_words_do_not_steer_it(capsys: pytest.CaptureFixture[str]):
    assert tables.main(["study=\x1b[31mx", "\x1b[2Jmetric=f1"]) == 2
    assert not STEERING.search(capsys.readouterr().err)


class Page(HTMLParser):
    """What a browser would make of a page: its tags, its scripts, its links, the cells of its first table."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: set[str] = set()
        self.scripts: list[str] = []
        self.links: list[str] = []
        self.rows: list[list[str]] = []
        self.cell = self.script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.script = tag == "script"
        self.links += [value or "" for key, value in attrs if key == "href"]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.cell = True
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self.script = self.script and tag != "script"
        self.cell = self.cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.script:
            self.scripts.append(data)
        if self.cell:
            self.rows[-1][-1] += data
