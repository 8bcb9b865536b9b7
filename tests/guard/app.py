"""Calls the program once for every hostile configuration, in one process; prints what came of each as JSON."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
import time
import traceback
from pathlib import Path

from hostile import HOSTILE

from kdexp.cli import main as program
from tests.warm import REPOSITORY, read_once

CONF = "stranger"


def carry_out(name: str) -> dict[str, object]:
    """Lay the files out, call the program, and say what happened."""
    case = HOSTILE[name]
    for folder in (CONF, "outside"):
        shutil.rmtree(folder, ignore_errors=True)
    for path, text in case.files.items():
        place = Path(CONF, path)
        Path(CONF).mkdir(exist_ok=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    words = [*(["--config-dir", CONF] if case.files else []), *case.words]
    before = {*sys.modules}
    out, err, began = io.StringIO(), io.StringIO(), time.monotonic()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code: object = program.main(words)
        except BaseException:
            code = traceback.format_exc()
    return {
        "code": code,
        "out": out.getvalue(),
        "err": err.getvalue(),
        "seconds": time.monotonic() - began,
        "imported": sorted(name for name in {*sys.modules} - before if name.partition(".")[0] == "evil"),
        "written": sorted(str(p) for p in Path().rglob("*") if "stranger" not in p.parts and "outside" not in p.parts),
    }


if __name__ == "__main__":
    read_once(REPOSITORY / "conf")  # kdexp's own files, not those of the stranger
    results = {name: carry_out(name) for name in HOSTILE}
    Path("results.json").write_text(json.dumps(results))
