"""Pages of the documentation that nobody types: configuration, studies, API, and what lies beside ``docs/``.

A hook of MkDocs (``mkdocs.yml``). The files of ``conf/`` are read as text, with their comments; nothing of kdexp is
imported, so that the site is built without PyTorch.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
GROUPS = (
    "teacher", "student", "init", "mapping", "objective", "objective/prediction", "objective/intermediate", "task",
    "recipe", "data", "runtime", "tracking", "hydra/launcher", "hydra/sweeper", "debug",
)  # fmt: skip
"""Folders of ``conf/`` that hold choices, in the order of the pages."""
BESIDE = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
"""Pages that lie in the repository's root."""
API = {
    "kdexp": "What is imported, and what everybody runs.",
    "kdexp.objectives": "Losses between student and teacher: the interface, shared pieces, one module an objective.",
    "kdexp.inits": "Where a student's weights come from: the interface, copying, cutting, one module an init.",
    "kdexp.methods": "How a run is laid out in stages: the interface, one module a method.",
    "kdexp.heads": "What a model answers and how an answer is judged: the interface, one module a head.",
    "kdexp.tasks": "From rows to batches and scores.",
    "kdexp.models": "Loading, building, saving, cutting, counting; families and architectures.",
    "kdexp.train": "The loop, a student, the teacher's labels, a phase.",
    "kdexp.delivery": "Students in forms that run without kdexp.",
    "kdexp.store": "Finished stages by content.",
    "analysis": "Tables, statistics, claims, figures, reports.",
}
"""Packages with an API page -> what they are; the rooms below them are for who works on kdexp itself."""


STUDIES = """What ships in `conf/experiment/`, from the comments that its files open with. Costs are what the file's
author expects; `dry=true` behind a command prints the number of its runs and, once a run of it has finished here, what
the rest will cost. *Not measured* means that no run of the present form is written down in this documentation."""


@dataclass(frozen=True)
class Setting:
    """One key of a configuration file.

    Attributes:
        key: dotted, from the file's own top.
        value: as it is written.
        comment: what the file says of it; '' where the file that it builds on says it.
    """

    key: str
    value: str
    comment: str


# --- reading conf/ ---------------------------------------------------------------------------------------------------


@cache
def text_of(path: Path) -> str:
    """The text of a file."""
    return path.read_text(encoding="utf-8")


def head(path: Path) -> list[str]:
    """The comment that a file opens with, line by line, without its signs."""
    lines = []
    for line in text_of(path).splitlines():
        if line.startswith("# @package"):
            continue
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("#").strip())
    return lines


def summary(path: Path) -> str:
    """The first sentence of the comment that a file opens with."""
    paragraph = " ".join(head(path)).partition("  ")[0]
    found = re.match(r".*?[.?!](?=\s+[A-Z(`]|$)", paragraph)
    return found[0] if found else paragraph


@cache
def bases(path: Path) -> tuple[tuple[Path, str], ...]:
    """The files that one builds on by its ``defaults``, each with the place where its keys are put."""
    found = []
    for entry in (yaml.load(text_of(path), Loader=LOADER) or {}).get("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            name, _, package = entry.partition("@")
            found.append((path.parent / f"{name}.yaml", f"{package}." if package else ""))
        elif isinstance(entry, dict):
            [(group, options)] = entry.items()
            if re.fullmatch(r"\w+", group):  # no override
                for option in options if isinstance(options, list) else [options]:
                    found.append((path.parent / group / f"{option}.yaml", f"{group}."))
    return tuple(found)


@cache
def settings(path: Path) -> tuple[Setting, ...]:
    """Every key of a file that has a value of its own, in the order of the file."""
    lines = text_of(path).splitlines()
    return tuple(_settings(yaml.compose(text_of(path), Loader=LOADER), lines, ""))


def _settings(node: yaml.Node | None, lines: list[str], above: str) -> Iterator[Setting]:
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        if key.value == "defaults":
            continue
        name, comment = f"{above}{key.value}", _comment(lines, key.start_mark)
        if isinstance(value, yaml.MappingNode) and value.value and not (value.flow_style and comment):
            if comment:
                yield Setting(name, "", comment)
            yield from _settings(value, lines, f"{name}.")
        else:
            yield Setting(name, _written(value), comment)


def _comment(lines: list[str], mark: Any) -> str:
    """The comment above a key, of its own depth, or behind it."""
    above: list[str] = []
    for line in reversed(lines[: mark.line]):
        if not re.match(rf" {{{mark.column}}}#", line) or "@package" in line:
            break
        above.insert(0, line.strip().lstrip("#").strip())
    behind = re.search(r"\s#\s*(\w.*)$", lines[mark.line])
    return " ".join([*above, *([behind[1]] if behind else [])])


def _written(node: yaml.Node) -> str:
    """A value as a command line could say it."""
    if isinstance(node, yaml.ScalarNode):
        return node.value if node.value else '""'
    if isinstance(node, yaml.SequenceNode):
        return f"[{', '.join(map(_written, node.value))}]"
    return f"{{{', '.join(f'{key.value}: {_written(value)}' for key, value in node.value)}}}"


@cache
def meanings(path: Path) -> dict[str, str]:
    """What a file, and those that it builds on, say of their keys."""
    said: dict[str, str] = {}
    for base, above in bases(path):
        said |= {f"{above}{key}": comment for key, comment in meanings(base).items()}
    return said | {row.key: row.comment for row in settings(path) if row.comment}


# --- pages -----------------------------------------------------------------------------------------------------------


def code(text: str) -> str:
    """Text as code in a cell of a table."""
    return f"<code>{html.escape(text).replace('|', '&#124;')}</code>" if text else ""


def cell(text: str) -> str:
    """Prose in a cell of a table."""
    return html.escape(text, quote=False).replace("|", "\\|").replace("*", "\\*")


def meaning(path: Path, key: str) -> str:
    """What is said of a key, or of the nearest that it is part of."""
    said, parts = meanings(path), key.split(".")
    if key not in said and parts[-1] == "_target_":
        return "The class that computes it."
    return next((said[name] for n in range(len(parts), 0, -1) if (name := ".".join(parts[:n])) in said), "")


def table(rows: Iterable[Setting], prefix: str, path: Path) -> list[str]:
    """The keys of a file with their values and meanings."""
    lines = ["| key | value | meaning |", "|---|---|---|"]
    for row in rows:
        lines.append(f"| {code(prefix + row.key)} | {code(row.value)} | {cell(meaning(path, row.key))} |")
    return lines


def _prose(lines: list[str]) -> list[str]:
    return [html.escape(line, quote=False).replace("*", "\\*") for line in lines]


def _link(base: Path, path: Path) -> str:
    """A link from a file's section to that of a file that it builds on."""
    group = base.parent.relative_to(CONF).as_posix()
    page = "" if base.parent == path.parent else f"{group.replace('/', '_')}.md"
    return f"[`{'' if not page else f'{base.parent.name}/'}{base.stem}`]({page}#{base.stem})"


def group_page(group: str) -> str:
    """The page of a group: its choices, then each file with all its keys."""
    files = sorted((CONF / group).glob("*.yaml"), key=lambda path: (not path.stem.startswith("_"), path.stem))
    choices = [path for path in files if not path.stem.startswith("_")]
    place = group.replace("/", ".") + "."
    prefix = "" if group == "debug" else place
    out = [f"# `{group}`", "", f"Chosen by `{group}=NAME`; a single key by `{prefix}KEY=VALUE`.", ""]
    if len(choices) > 1:
        out += ["| choice | what it is |", "|---|---|"]
        out += [f"| [`{path.stem}`](#{path.stem}) | {cell(summary(path))} |" for path in choices]
        out += [""]
    for path in files:
        title = f"Behind the choices: `{path.stem}`" if path.stem.startswith("_") else f"`{path.stem}`"
        out += [f"## {title} {{ #{path.stem} }}", "", *_prose(head(path)), ""]
        below = [_link(base, path) for base, _ in bases(path)]
        out += [f"Builds on {', '.join(below)}.", ""] if below else []
        rows = settings(path)
        out += [*table(rows, prefix, path), ""] if rows else []
    return "\n".join(out)


def top_page() -> str:
    """The page of the keys that are in no group, with links to the groups."""
    rows = settings(CONF / "config.yaml")
    own = [row for row in rows if not row.key.startswith("hydra")]
    out = [
        "# Configuration",
        "",
        "Every key, from the files of `conf/` and their comments. `python -m kdexp --cfg job`",
    ]
    out += ["prints the whole configuration of a run; any key is set by `key=value` on the command line.", ""]
    out += ["## Groups", "", "| group | choices |", "|---|---|"]
    for group in GROUPS:
        count = len(list((CONF / group).glob("[!_]*.yaml")))
        out.append(f"| [`{group}`]({group.replace('/', '_')}.md) | {count} |")
    out += [f"| [`experiment`](../studies.md) | {len(list((CONF / 'experiment').glob('*.yaml')))} |", ""]
    out += ["## Keys of no group", "", *table(own, "", CONF / "config.yaml"), ""]
    return "\n".join(out)


def _question(lines: list[str]) -> tuple[list[tuple[str, str]], str]:
    """The commands of a study, each with its remark, and what it asks."""
    commands, rest = [], []
    for line in lines:
        found = re.match(r"((?:KDEXP_DATA=\S+ )?python -m kdexp [^(]*?)\s*(?:\((.*)\))?$", line)
        if found:
            commands.append((found[1].strip(), found[2] or ""))
        else:
            rest.append(line)
    return commands, " ".join(rest).strip()


def studies_page() -> str:
    """The gallery: what each shipped study asks, its commands, what they cost, where its result stands."""
    results = text_of(ROOT / "docs" / "results.md")
    out = ["# Studies", "", STUDIES, ""]
    for path in sorted((CONF / "experiment").glob("*.yaml")):
        commands, asks = _question(head(path))
        out += [f"## `{path.stem}` {{ #{path.stem} }}", "", *_prose([asks]), "", "```"]
        out += [line for command, remark in commands for line in ([f"# {remark}"] if remark else []) + [command]]
        out += ["```", "", f"Result: {_result(path.stem, results)}.", ""]
    return "\n".join(out)


def _result(study: str, results: str) -> str:
    if study == "quickstart":
        return "[the tour](tour.md#the-first-study)"
    found = re.search(rf"^## (.*)\n\n`{study}_desk`: ", results, re.MULTILINE)
    if not found:
        return "not measured"
    return f"[its desk form](results.md#{_anchor(found[1])})"


def _anchor(title: str) -> str:
    """The anchor that MkDocs gives a heading."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title.replace("`", "")).strip().lower())


def modules(package: str) -> list[str]:
    """The modules of a package that have an API, the package itself first."""
    folder = ROOT / package.replace(".", "/")
    if package == "kdexp":
        return ["kdexp"]
    pattern = "*.py" if package == "analysis" else "**/*.py"
    paths = [path for path in sorted(folder.glob(pattern)) if path.name not in ("__init__.py", "__main__.py")]
    return [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]


def api_page(package: str) -> str:
    """The page of a package: each of its modules."""
    out = [f"# `{package}`", "", API[package], ""]
    for module in modules(package):
        out += [f"## `{module}`" + f" {{ #{module} }}", "", f"::: {module}", "    options:", "      heading_level: 3"]
        out += ["      show_root_heading: false", "      show_root_toc_entry: false", ""]
    return "\n".join(out)


def api_index() -> str:
    """The page with all API pages."""
    out = ["# API", "", "From the docstrings. What is not here is for who works on kdexp itself:"]
    out += ["[Architecture](../architecture.md) says where it is.", "", "| package | |", "|---|---|"]
    out += [f"| [`{package}`]({package}.md) | {said} |" for package, said in API.items()]
    return "\n".join([*out, ""])


def generated() -> dict[str, str]:
    """Every generated page: its place below ``docs/`` -> its text."""
    pages = {"configuration/index.md": top_page(), "studies.md": studies_page(), "api/index.md": api_index()}
    pages |= {f"configuration/{group.replace('/', '_')}.md": group_page(group) for group in GROUPS}
    pages |= {f"api/{package}.md": api_page(package) for package in API}
    for name in BESIDE:
        pages[name.lower()] = re.sub(r"\]\(docs/", "](", text_of(ROOT / name))
    return pages


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages to those of ``docs/``; called by MkDocs."""
    from mkdocs.structure.files import File

    for place, content in generated().items():
        files.append(File.generated(config, place, content=content))
    return files
