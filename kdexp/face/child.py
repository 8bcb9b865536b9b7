"""The program in a process of its own, asked by another program (:mod:`kdexp.face.process`)."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path

from kdexp.cli import callbacks
from kdexp.cli import main as program
from kdexp.common import problems


def main() -> int:
    """Read the request, carry it out, write down what came of it.

    The request is a line of JSON on stdin: ``words`` of the command line, and ``answer``, the file to write:
    ``sentences`` that ended it, and ``run``, the folder of a single run. When stdin ends, whoever asked is gone: the
    runs then save themselves, as after Ctrl-C.
    """
    asked = json.loads(sys.stdin.readline())
    threading.Thread(target=_follow, daemon=True).start()
    sentences: list[str] = []
    problems.listener = sentences.extend
    sys.argv = ["kdexp", *asked["words"]]  # what a study notes as its command
    code = program.main(asked["words"])
    run = callbacks.checked.run_dir.absolute() if callbacks.checked else None
    Path(asked["answer"]).write_text(json.dumps({"sentences": sentences, "run": str(run) if run else None}))
    return code


def _follow() -> None:
    while os.read(0, 1):  # not sys.stdin, whose lock a thread would hold when the process ends
        pass
    os.kill(os.getpid(), signal.SIGINT)
