"""The report: one file, everything in it, nothing loaded from elsewhere, readable in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from analysis import report
from analysis.collect import collect
from tests.analysis.synthetic import grid, make_result, write_mlflow, write_points, write_run
from tests.analysis.test_compare import Study as Compared

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


class Outline(HTMLParser):
    """Ids, links and unclosed elements of a page."""

    VOID = {"meta", "link", "br", "img", "input", "hr"}

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids += [found["id"]] if found.get("id") else []
        self.links += [found["href"]] if tag == "a" and found.get("href") else []
        self.loaded += [str(found[key]) for key in ("src", "srcset") if key in found]
        self.loaded += [str(found.get("href"))] if tag == "link" else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def outline(text: str) -> Outline:
    found = Outline()
    found.feed(text)
    assert not found.open
    return found


def test_the_page_is_self_contained_and_sound(study: Path) -> None:
    write_mlflow(study, "quickstart", grid())
    text = report.page(collect("quickstart", study), "http://127.0.0.1:5000/")
    found = outline(text)
    assert not found.loaded and "@import" not in text and not re.search(r"url\((?!#)", text)
    assert len(found.ids) == len(set(found.ids))
    anchors = {link[1:] for link in found.links if link.startswith("#")}
    assert anchors <= set(found.ids) and {"scores", "claims", "cost", "environment", "configuration", "runs"} <= anchors
    runs = [
        link
        for link in found.links
        if re.fullmatch(r"http://127\.0\.0\.1:5000/#/experiments/\d+/runs/[0-9a-f]{32}", link)
    ]
    assert len(runs) == 54
    assert text.count("<svg") == 4 and 'class="best"' in text and "Best average: att_kl / first" in text
    assert "Left out. Mean ranks: on 2 tasks 9 rows would have to differ by 8.5 ranks" in text
    assert "size (MB)" in text and '<td data-v="68.0">68.0</td>' in text and "bytes" not in text
    cost = "10.0 9.0 300.0 1,066 900.0 17.0 68.0".split()
    row = re.search(r"<tr[^>]*>\s*<t[hd][^>]*>kd</t[hd]>(.*?)</tr>", text[text.index('id="cost"') :], re.S)
    assert row is not None and re.findall(r">([^<>\s]+)</td>", row[1])[1:] == cost, "as each run has it"
    assert "test cpu" in text and "learning_rate" in text and 'class="text supported"' in text


def test_whoever_receives_the_page_finds_no_dead_link(study: Path) -> None:
    write_mlflow(study, "quickstart", grid())
    found = outline(report.page(collect("quickstart", study)))
    assert found.links and all(link.startswith("#") for link in found.links)


def test_the_verdict_comes_first_and_follows_the_runs(study: Path, tmp_path: Path) -> None:
    """A planted effect is said with its interval and claims; where there is none, chance is named."""
    said = report.page(collect("quickstart", study, "folders"))
    verdict = re.search(r'<p class="verdict">(.*?)</p>', said)
    assert verdict and said.index(verdict[0]) < said.index('id="scores"')
    assert "whether distilling helps." in said[: said.index(verdict[0])]
    gain = re.search(r"att_kl / first is \+(\d\.\d) points \[\+(\d\.\d), \+(\d\.\d)\]\.", verdict[1])
    assert gain and float(gain[2]) <= 6.0 <= float(gain[3]), "6 points were planted"
    assert "Of the 2 claims that it was planned for: 1 supported" in verdict[1]
    for result in grid("noise", noise=0.3):
        write_run(tmp_path, result)
    noise = re.search(r'<p class="verdict">(.*?)</p>', report.page(collect("noise", tmp_path, "folders")))
    assert noise and "which may be chance" in noise[1] and "planned for" not in noise[1]


def test_what_starts_fine_tuned_is_compared_with_what_starts_fine_tuned(tmp_path: Path) -> None:
    """KD after fine-tuning, fine-tuning once and twice: the gain of KD is over the second."""
    made, right = Compared(tmp_path, "mine"), {"once": 0.0, "twice": 0.0, "kd": 0.0}
    for seed in (1, 2, 3):
        for which, skill in (("once", 0.3), ("twice", 0.9), ("kd", 1.3)):
            words = [] if which == "once" else ["objective.start=fine_tuned"]
            objective = "kd" if which == "kd" else "finetune"
            made.run(objective, seed, skill, *words)
            right[which] += 100 * made.correct[objective, seed].mean() / 3
    page = report.page(made.collected())
    gain = re.search(r"Against the same start without distillation, kd_ft / first is \+(\d+\.\d) points", page)
    assert gain and float(gain[1]) == pytest.approx(right["kd"] - right["twice"], abs=0.06)
    assert right["twice"] - right["once"] > 5


def test_the_summary_is_no_stronger_than_the_test(tmp_path: Path) -> None:
    for name, results, words in (
        ("noise", grid("noise", noise=0.08), "the seeds cannot tell it from"),
        ("one", grid("one", seeds=1), "one seed cannot say"),
    ):
        for result in results:
            write_run(tmp_path, result)
        assert words in report.page(collect(name, tmp_path, "folders"))


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    results = [
        make_result("quickstart", "rte", "kd", evil, s, run__name=f"r{s}", runtime__hardware=evil) for s in (0, 1)
    ]
    for result in results:
        write_run(tmp_path, result)
    write_points(tmp_path, "quickstart", results)
    text = report.page(collect("quickstart", tmp_path, "folders"))
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text


def test_the_command_and_an_incomplete_study(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["study=quickstart", f"root={study}", "source=folders"]
    assert report.main(words) == 0
    path = study / "quickstart" / "report.html"
    assert str(path) in capsys.readouterr().out
    next((study / "quickstart").glob("rte-kd-*/result.json")).unlink()
    assert report.main(words) == 2
    assert report.main([*words, "incomplete=allow"]) == 0
    assert "Incomplete: 1 runs are missing." in path.read_text()
    assert report.main([*words, "ui=javascript:alert(1)"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1300])
def test_a_real_browser_shows_it(study: Path, width: int) -> None:
    """Headless Chromium: the page fits the width of its window, sorts its table, and its screenshot is not blank."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    assert report.main(["study=quickstart", f"root={study}", "source=folders"]) == 0
    page = study / "quickstart" / "report.html"
    probe = """<script>window.addEventListener("load", function () {
      var table = document.querySelector("#scores table"), head = table.tHead.rows[0].cells;
      function top(title) {
        Array.from(head).find(function (one) { return one.textContent === title; }).click();
        var rows = table.tBodies[0].rows;
        return rows[0].textContent + "|" + rows[rows.length - 1].textContent; }
      var groups = top("group"), first = top("average") + "|" + groups;
      var page = document.documentElement;
      document.title = "WIDE=" + (page.scrollWidth - page.clientWidth) + ";FIRST=" + first; });</script>"""
    probed = page.with_name("probed.html")
    # an iframe gives the page exactly the width of a phone; Chromium's own window does not go below 500 pixels
    probed.write_text(page.read_text().replace("</body>", probe + "</body>"))
    outer = page.with_name("outer.html")
    outer.write_text(
        f"<!doctype html><iframe src='probed.html' style='width:{width}px;height:900px;border:0' "
        "onload='setTimeout(()=>{"
        "document.body.dataset.title=this.contentDocument.title},300)'></iframe>"
    )
    common = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--allow-file-access-from-files",
        f"--user-data-dir={study / 'profile'}",
        f"--window-size={max(width, 500)},1200",
    ]
    dumped = subprocess.run(
        [*common, "--virtual-time-budget=5000", "--dump-dom", outer.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    seen = re.search(r'data-title="WIDE=(-?\d+);FIRST=([^"]*)"', dumped.stdout)
    assert seen, dumped.stdout[:500] + dumped.stderr[-500:]
    assert int(seen[1]) <= 0  # nothing sticks out of the window: wide tables scroll inside their own box
    best, worst, first_group, no_group = seen[2].split("|")
    assert best.startswith("teacher") and worst.startswith("majority")  # sorted by average, best first
    assert first_group.endswith("a") and no_group.startswith(("teacher", "majority"))  # the best group first, none last
    shot = study / "shot.png"
    subprocess.run([*common, f"--screenshot={shot}", page.as_uri()], capture_output=True, timeout=120, check=True)
    import matplotlib.image

    light = matplotlib.image.imread(shot)[..., :3]
    assert light.std() > 0.05
    dark = [*common, "--blink-settings=preferredColorScheme=0", f"--screenshot={shot}", page.as_uri()]
    subprocess.run(dark, capture_output=True, timeout=120, check=True)
    assert matplotlib.image.imread(shot)[..., :3].mean() < 0.35 < 0.8 < light.mean()
    pdf = study / "page.pdf"
    subprocess.run([*common, f"--print-to-pdf={pdf}", page.as_uri()], capture_output=True, timeout=120, check=True)
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", pdf.read_bytes())) <= 12
