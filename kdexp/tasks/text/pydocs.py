"""The documentation strings of Python's standard library, as data that every machine has.

Source files are parsed with :mod:`ast`; nothing is imported or executed. The corpus depends on the interpreter's
version only: the same Python gives the same records, in the same order.
"""

from __future__ import annotations

import ast
import hashlib
import re
import sysconfig
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

SCHEMA = 1
"""Raise it when the meaning of the extraction changes: cached corpora are then made anew."""

AREAS: dict[str, str] = {
    "internet": "asynchat asyncore cgi email ftplib http imaplib ipaddress mailbox mailcap mimetypes nntplib poplib "
    "smtpd smtplib socket socketserver ssl telnetlib urllib webbrowser wsgiref xmlrpc",
    "concurrency": "_threading_local asyncio concurrent contextvars multiprocessing queue sched selectors signal "
    "subprocess threading",
    "formats": "_markupbase base64 codecs configparser csv html json pickle pickletools plistlib quopri tomllib xml",
    "numbers_dates": "_pydatetime _pydecimal _strptime calendar colorsys datetime decimal fractions numbers random "
    "statistics zoneinfo",
    "files": "_compression _pyio bz2 compression filecmp fileinput fnmatch genericpath glob gzip lzma ntpath os "
    "pathlib posixpath shutil stat tarfile tempfile zipfile",
    "language": "_collections_abc abc ast collections contextlib copy ctypes dataclasses dis enum functools importlib "
    "inspect operator pkgutil symtable tokenize types typing weakref",
    "testing_debug": "bdb cProfile cgitb doctest logging pdb profile pstats pydoc timeit trace traceback tracemalloc "
    "unittest warnings",
    "gui": "curses tkinter turtle",
    "other": "argparse cmd code difflib getopt gettext locale modulefinder optparse platform pprint rlcompleter shlex "
    "site sysconfig textwrap venv zipapp",
}
"""Area of the library -> its top-level modules, of any Python from 3.11 on; what a version lacks is left out."""

SKIPPED = {"test", "tests", "site-packages", "dist-packages", "__pycache__", "_bundled", "_vendor"}


@dataclass(frozen=True)
class Record:
    """One documented module, class or function.

    Attributes:
        area: key of :data:`AREAS`.
        module: dotted name of the file it stands in (``http.client``).
        kind: ``module``, ``class`` or ``function``.
        name: bare name (empty for modules).
        owner: name of the enclosing class, or ''.
        doc: the documentation string, indentation removed.
        parameters: a function's parameters as source, without ``self`` and ``cls``.
    """

    area: str
    module: str
    kind: str
    name: str
    owner: str
    doc: str
    parameters: str = ""


def library() -> Path:
    """Folder of the running interpreter's standard library."""
    return Path(sysconfig.get_path("stdlib"))


@lru_cache(maxsize=2)
def sources(root: Path) -> tuple[tuple[str, str, Path], ...]:
    """``(area, module, file)`` of every source file that is read, ordered by module name.

    Listed once a process: every point of a grid asks.
    """
    found = []
    for area, tops in AREAS.items():
        for top in tops.split():
            files = [root / f"{top}.py"] if (root / f"{top}.py").is_file() else sorted((root / top).rglob("*.py"))
            for file in files:
                parts = file.relative_to(root).with_suffix("").parts
                if not SKIPPED & set(parts):
                    found.append((area, ".".join(parts).removesuffix(".__init__"), file))
    return tuple(sorted(found, key=lambda item: item[1]))


def state(root: Path) -> str:
    """sha256 over names, sizes and times of the source files: changes when the corpus might; costs milliseconds."""
    digest = hashlib.sha256(str(SCHEMA).encode())
    for area, module, file in sources(root):
        stat = file.stat()
        digest.update(f"{area} {module} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


@lru_cache(maxsize=2)
def corpus(root: Path) -> tuple[Record, ...]:
    """All records below ``root``, ordered by module and line (about 3 s; kept for the process).

    Files that this interpreter cannot parse are left out.
    """
    records: list[Record] = []
    for area, module, file in sources(root):
        try:
            tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError):
            continue
        records += _visit(tree, area, module, "")
    return tuple(records)


def _visit(node: ast.AST, area: str, module: str, owner: str) -> list[Record]:
    """Records of a node and of the classes and functions directly inside it (not of functions inside functions)."""
    out: list[Record] = []
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        doc = ast.get_docstring(node)
        if doc:
            out.append(Record(area, module, "function", node.name, owner, doc, _parameters(node.args)))
        return out
    if isinstance(node, ast.Module | ast.ClassDef):
        doc = ast.get_docstring(node)
        name = node.name if isinstance(node, ast.ClassDef) else ""
        if doc:
            out.append(Record(area, module, "class" if name else "module", name, owner, doc))
        owner = name
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            out += _visit(child, area, module, owner)
    return out


def _parameters(args: ast.arguments) -> str:
    """Source of a parameter list without ``self`` and ``cls``."""
    text = ast.unparse(args)
    return re.sub(r"^(self|cls)(, |$)", "", text)


# --- from documentation to short texts -----------------------------------------------------------------------------


def prose(doc: str, limit: int) -> list[str]:
    """The paragraphs of a documentation string that are sentences, each cut to whole sentences within ``limit``.

    Doctests, lists, tables, signatures and headings are left out.
    """
    out = []
    for paragraph in re.split(r"\n\s*\n", doc):
        if ">>>" in paragraph or re.match(r"\s*([-*+|=~#@]|\d+[.)]|:\w+)", paragraph):
            continue
        text = clip(" ".join(paragraph.split()), limit)
        letters = sum(c.isalpha() or c == " " for c in text)
        if len(text.split()) >= 5 and letters >= 0.8 * len(text) and not text.endswith(":"):
            out.append(text)
    return out


def clip(text: str, limit: int) -> str:
    """Cut ``text`` to as many whole sentences as fit in ``limit`` characters, or to whole words if none does."""
    if len(text) <= limit:
        return text
    head = text[: limit + 1]
    ends = [m.end() for m in re.finditer(r"[.!?](?= )", head)]
    return head[: ends[-1]] if ends and ends[-1] >= 30 else head.rsplit(" ", 1)[0][:limit]


def normal(text: str) -> str:
    """Key by which texts count as equal: lower case, letters only."""
    return " ".join(re.findall(r"[a-z]+", text.lower()))


def rank(*parts: str) -> str:
    """A fixed pseudo-random order: sort by this to shuffle in the same way everywhere."""
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()


def validation_modules(sizes: dict[str, dict[str, int]], share: float, salt: str) -> set[str]:
    """Choose whole modules for validation: about ``share`` of every area's examples.

    Modules of packages go first, so that validation asks about unseen modules more often than about unseen topics.

    Args:
        sizes: area -> module -> number of examples.
        share: wanted part of each area's examples.
        salt: name of the task; different tasks are cut differently.
    """
    chosen: set[str] = set()
    for area, modules in sizes.items():
        room = share * sum(modules.values())
        family = Counter(m.partition(".")[0] for m in modules)
        for module in sorted(modules, key=lambda m: (family[m.partition(".")[0]] < 2, rank(salt, area, m))):
            if modules[module] <= room:
                chosen.add(module)
                room -= modules[module]
    return chosen
