"""A request carried out by the program in a process of its own.

So a notebook stays what it was: no library is imported into it or set up for kdexp (Hydra's state is global), an event
loop that runs is no hindrance, memory and devices are given back, and Ctrl-C, or the stop button, is a run's own signal
to save itself. A script needs no ``if __name__ == "__main__"``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kdexp.common.problems import ConfigError

PACKAGE = Path(__file__).resolve().parents[2]
LAST = 12
"""Lines that are quoted where a program ended without a sentence."""
REFUSED, INTERRUPTED = 2, 130
"""Exit codes of the program."""


@dataclass(frozen=True)
class Answer:
    """What came of a request.

    Attributes:
        code: 0 = done, 1 = something of it failed, and no sentence said for all of it what.
        run: the folder of a single run.
        last: the last lines that were printed.
    """

    code: int
    run: Path | None
    last: list[str]

    def failure(self) -> RuntimeError:
        """Return what says that it failed, where nothing better is known."""
        return RuntimeError("\n".join([f"the program ended with code {self.code}:", *self.last]))


def ask(words: Sequence[str], show: bool = True) -> Answer:
    """Carry out a command line and return what came of it.

    Args:
        words: what would follow ``python -m kdexp``.
        show: print what the program prints, as it comes.

    Raises:
        ConfigError: the request cannot work; nothing was started.
        RuntimeError: it failed on the way.
        KeyboardInterrupt: a person stopped it; runs have saved themselves, and the same call continues them.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        code, last = _carried_out(json.dumps({"words": [*words], "answer": str(answer)}), show)
        told = json.loads(answer.read_text()) if answer.is_file() else {"sentences": [], "run": None}
    sentences = [str(sentence) for sentence in told["sentences"]]
    if code == INTERRUPTED:
        raise KeyboardInterrupt(" ".join(sentences))
    if code == REFUSED and sentences:
        raise ConfigError(sentences)
    if sentences:
        raise RuntimeError(" ".join(sentences))
    result = Answer(code, None if told["run"] is None else Path(told["run"]), last)
    if code not in (0, 1):
        raise result.failure()
    return result


def _carried_out(request: str, show: bool) -> tuple[int, list[str]]:
    """Run the program; return its exit code (:data:`INTERRUPTED` if a person stopped it) and its last lines."""
    path = os.pathsep.join(filter(None, [str(PACKAGE), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; from kdexp.face.child import main; sys.exit(main())"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8:replace"},
        encoding="utf-8", errors="replace",
        start_new_session=True,  # Ctrl-C is for whoever asked, who hands it on once
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    last: deque[str] = deque(maxlen=LAST)
    stopped = False
    try:
        with suppress(BrokenPipeError):  # it could not even start: its last lines say why
            process.stdin.write(request + "\n")  # not an argument: it may hold what others shall not list
            process.stdin.flush()  # and stays open: its end tells the program that nobody waits for it any more
        while True:
            try:
                for line in process.stdout:
                    last.append(line.rstrip("\n"))
                    if show:
                        print(line, end="", flush=True)
                code = process.wait()
                return INTERRUPTED if stopped else code, [*last]
            except KeyboardInterrupt:
                stopped = True
                process.send_signal(signal.SIGINT)  # runs save themselves; the loop goes on reading until they have
    finally:
        with suppress(BrokenPipeError):
            process.stdin.close()
        if process.poll() is None:
            process.wait()
