"""Questions to the model and data hub: answered, or given up, within seconds; and what its cache knows without asking.

A *commit* (40 hexadecimal digits) is what a revision (``main``, a tag, null) stands for at one moment. It is asked for
once a process and remembered where the hub's own client does it (``refs/`` in its cache), so that the same question
has an answer when the hub is switched off.
"""

from __future__ import annotations

import os
import queue
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from kdexp.common import files
from kdexp.common.redact import without_secrets

PAUSES = (1.0, 2.0)
"""Seconds before a question is put again to a hub that was busy or broken, while half the time is left."""
BUSY = (408, 429, 500, 502, 503, 504)
"""Statuses of a hub that is busy or broken, which pass."""
PIECE = 1 << 20
"""Bytes of a download that are written at once: as much is lost when it breaks off."""
PATIENCE = 12
"""How many times HF_HUB_DOWNLOAD_TIMEOUT (10 s) a download may go on without a further piece."""


T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """What the hub, or its cache, says of a revision.

    Attributes:
        commit: what the revision stands for; None if nobody could tell.
        files: all that are there at that commit; of the cache, those that it has.
        trouble: why there is no commit, and what to do about it (``... : ...``); empty if there is one.
        absent: the hub did not answer, which says nothing about the repository.
    """

    commit: str | None = None
    files: frozenset[str] = frozenset()
    trouble: str = ""
    absent: bool = False


def switched_off(*more: str) -> str | None:
    """Return the environment setting that forbids the hub (such as ``HF_HUB_OFFLINE=1``), or None.

    Args:
        more: further variables that forbid it for some of its uses.
    """
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", *more):
        if os.environ.get(name, "").strip().lower() not in ("", "0", "false", "no", "off"):
            return f"{name}={os.environ[name]}"
    return None


def is_commit(revision: str | None) -> bool:
    """Tell whether a revision is a whole commit, which never stands for anything else."""
    return bool(re.fullmatch("[0-9a-f]{40}", revision or ""))


def nameable(name: str) -> bool:
    """Tell whether the hub could have a repository of this name."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def proper(revision: str) -> bool:
    """Tell whether git could have a branch, a tag or a commit of this name; no other one becomes part of a path."""
    return re.fullmatch(r"[\w.+@-]+(/[\w.+@-]+)*", revision) is not None and ".." not in revision


def folder(kind: str, name: str, commit: str) -> Path:
    """Return where the cache has the files of a commit; the folder need not exist.

    Args:
        kind: ``model`` or ``dataset``.
        name: ``owner/name``.
        commit: 40 hexadecimal digits.
    """
    return repository(kind, name) / "snapshots" / commit


def repository(kind: str, name: str) -> Path:
    """Return the cache's folder of a repository, with its files of all commits."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"{kind}s--{name.replace('/', '--')}"


def remembered(kind: str, name: str, revision: str | None) -> Answer:
    """Return what the cache knows of a revision; nobody is asked."""
    commit = revision if is_commit(revision) else None
    if commit is None:
        with suppress(OSError):
            commit = (repository(kind, name) / "refs" / (revision or "main")).read_text().strip()
    if not is_commit(commit):
        return Answer()
    assert commit is not None
    place = folder(kind, name, commit)
    return Answer(commit, frozenset(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()))


_silent: list[Answer] = []
"""The answer of a hub that did not answer: whoever asks next need not wait again."""


@lru_cache(maxsize=256)
def ask(kind: str, name: str, revision: str | None, first: str, more: tuple[str, ...] = ()) -> Answer:
    """Ask the hub what a revision stands for, once a process; within the limits, whatever the hub does.

    Args:
        kind: ``model`` or ``dataset``.
        name: ``owner/name``.
        revision: branch, tag, pull request or commit; None = ``main``.
        first: a small file, fetched into the cache if there is one. It also tells whether the files of a gated
            repository may be read: its existence is public.
        more: further files that are fetched.

    The limit is HF_HUB_ETAG_TIMEOUT (10 s) for the commit and the first file together, three times that for the rest.
    """
    from huggingface_hub import constants

    if _silent:
        return _silent[0]
    limit = seconds = float(constants.HF_HUB_ETAG_TIMEOUT)
    try:
        answer = within(limit, lambda: _patiently(lambda: _question(kind, name, revision, first, limit), limit / 2))
        if more:
            seconds = 3 * limit
            within(seconds, lambda: _snapshot(name, str(answer.commit), more))
    except Exception as error:  # of several libraries
        answer = _trouble(error, kind, name, revision, seconds)
        if answer.absent:
            _silent.append(answer)
        return answer
    if not is_commit(revision):
        with suppress(OSError):  # a cache that cannot be written
            files.write_text(repository(kind, name) / "refs" / (revision or "main"), str(answer.commit))
    return answer


def within(seconds: float, question: Callable[[], T]) -> T:
    """Return the answer to a question, or stop waiting: a client's own limits are for one read each, not for all.

    Raises:
        TimeoutError: there is none within so many seconds.
        Exception: what the question raises.
    """
    try:
        return _outcome(_begun(question).get(timeout=seconds))
    except queue.Empty:
        _leave()
        raise TimeoutError from None


def _leave() -> None:
    """Let the process end though a client's threads still wait for the hub: Python would join those of its pools."""
    from concurrent.futures import thread

    pooled = getattr(thread, "_threads_queues", {})
    for worker in [worker for worker in pooled if worker.daemon]:  # as whatever a thread of ours has begun
        del pooled[worker]


def _begun(call: Callable[[], T]) -> queue.SimpleQueue[T | Exception]:
    """Make a call in a thread, which is left behind if nobody waits for it; its outcome comes into the queue."""
    box: queue.SimpleQueue[T | Exception] = queue.SimpleQueue()

    def work() -> None:
        try:
            box.put(call())
        except Exception as error:
            box.put(error)

    threading.Thread(target=work, daemon=True).start()
    return box


def _outcome(outcome: T | Exception) -> T:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _patiently(question: Callable[[], Answer], seconds: float) -> Answer:
    """Put a question again when the hub was busy, but not after so many seconds."""
    began = time.monotonic()
    for pause in PAUSES:
        try:
            return question()
        except OSError as error:
            late = time.monotonic() - began + pause > seconds
            if _status(error) not in BUSY or _wait(error) > pause or late:
                raise
            time.sleep(pause)
    return question()


def _question(kind: str, name: str, revision: str | None, first: str, limit: float) -> Answer:
    from huggingface_hub import HfApi, get_hf_file_metadata, get_token, hf_hub_download, hf_hub_url

    info: Any = HfApi().repo_info(name, repo_type=kind, revision=revision, timeout=limit)
    commit, there = str(info.sha), frozenset(sibling.rfilename for sibling in info.siblings or ())
    if not is_commit(commit):
        raise ValueError("no commit")
    if first in there and not (folder(kind, name, commit) / first).is_file():
        # First without the client's own patience, which is longer than ours and forgets what the hub has said.
        url = hf_hub_url(name, first, repo_type=kind, revision=commit)
        get_hf_file_metadata(url, token=get_token() or False, timeout=limit)
        hf_hub_download(name, first, repo_type=kind, revision=commit, etag_timeout=limit)
    return Answer(commit, there)


def _snapshot(name: str, commit: str, wanted: tuple[str, ...]) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.utils import tqdm

    pieces = []

    class Silent(tqdm):
        """A progress bar that shows nothing: a run has a display of its own."""

        def __init__(self, *args: Any, **kwargs: Any):
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            pieces.append(n)
            return None

    constants.DOWNLOAD_CHUNK_SIZE = min(constants.DOWNLOAD_CHUNK_SIZE, PIECE)  # it has no other setting for that

    def download() -> str:
        return snapshot_download(name, revision=commit, allow_patterns=list(wanted), tqdm_class=Silent)

    # Another process may be downloading the same: then its pieces are seen in the folder, and none are counted here.
    return Path(while_it_grows(download, lambda: (len(pieces), size(repository("model", name)))))


def while_it_grows(download: Callable[[], T], state: Callable[[], object]) -> T:
    """Return what a download returns, or stop waiting for one that has come to a halt.

    A client has a limit for each read, which a hub that sends a byte now and then never reaches.

    Args:
        download: may take hours.
        state: what changes with each piece.

    Raises:
        TimeoutError: no further piece has come for :data:`PATIENCE` times HF_HUB_DOWNLOAD_TIMEOUT.
    """
    from huggingface_hub import constants

    limit = PATIENCE * float(constants.HF_HUB_DOWNLOAD_TIMEOUT)
    before, since = state(), time.monotonic()
    box = _begun(download)
    while True:
        with suppress(queue.Empty):
            return _outcome(box.get(timeout=min(1.0, limit / 4)))
        now = state()
        if now != before:
            before, since = now, time.monotonic()
        elif time.monotonic() - since > limit:
            _leave()
            raise TimeoutError(f"no further piece within {limit:.0f} s ({PATIENCE} times HF_HUB_DOWNLOAD_TIMEOUT)")


def size(folder: Path) -> int:
    """Return the bytes below a folder that others may be writing to; 0 if there is none."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.lstat().st_size
    return total


def fetch(name: str, commit: str, wanted: tuple[str, ...]) -> Path:
    """Return the cache's folder of a model at a commit, with those of the wanted files that the hub has.

    What is there already is not asked for again. Files can be large, so there is no limit for the whole, but for each
    piece of them (:func:`while_it_grows`).

    Args:
        wanted: names of files.

    Raises:
        ValueError: they cannot be had, in a sentence.
    """
    if switched_off():
        return folder("model", name, commit)
    try:
        return _snapshot(name, commit, wanted)
    except Exception as error:  # of several libraries
        if isinstance(error, OSError) and error.errno is not None:  # of the disk, not of the hub
            raise
        raise ValueError(
            f"the files of hub:{name} at {commit} cannot be fetched: {trouble(error, 'model', name, commit)}. What has "
            "come is kept, and the same command continues."
        ) from error


def _status(error: BaseException) -> int | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _wait(error: BaseException) -> float:
    """Return the seconds that a hub asks to be left alone; 0 if it does not say."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    said = re.search(r"(?:^|t=)(\d+)", headers.get("Retry-After") or headers.get("RateLimit") or "")
    return float(said[1]) if said else 0.0


def host() -> str:
    """Return the hub's host and port, without what else its address may hold."""
    from huggingface_hub import constants

    address = urlsplit(constants.ENDPOINT)
    return f"{address.hostname}:{address.port}" if address.port else str(address.hostname)


def trouble(error: BaseException, kind: str, name: str, revision: str | None) -> str:
    """Return what is the matter with a download, and what to do: ``... : ...``, without a full stop."""
    return _trouble(error, kind, name, revision, None).trouble


def _trouble(error: BaseException, kind: str, name: str, revision: str | None, limit: float | None) -> Answer:
    """Put an error of the hub's client into words: what is the matter, and what to do."""
    from huggingface_hub import errors

    while (
        isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None
    ):  # it has no word of its own
        error = error.__cause__

    what, login = {"model": "model", "dataset": "data set"}[kind], "HF_TOKEN, or `hf auth login`"
    status, hub = _status(error), f"the hub ({host()})"
    if isinstance(error, errors.GatedRepoError):
        text = f"{name} is gated: accept its conditions on its page and log in as who was let in ({login})"
    elif isinstance(error, errors.RepositoryNotFoundError):
        text = f"{hub} has no {what} {name} that this login may see: correct the name, or log in ({login})"
    elif isinstance(error, errors.RevisionNotFoundError):
        text = f"{name} has no revision {revision}: name a branch, a tag or a commit that it has"
    elif status == 401:
        text = f"{hub} refuses the token that is set ({login}): renew it, or unset it"
    elif status == 403:
        text = f"{hub} does not let this login read {name}: use a token that may ({login})"
    elif status == 429:
        wait = f" It asks to wait {_wait(error):.0f} s." if _wait(error) else ""
        return Answer(trouble=f"{hub} limits requests (429): try later, or log in ({login}).{wait}", absent=True)
    elif status is not None:
        absent = status in BUSY or status >= 500
        remedy = "try later" if absent else "check HF_ENDPOINT and the name"
        return Answer(trouble=f"{hub} answers {status}: {remedy}", absent=absent)
    elif isinstance(error, TimeoutError) or _is(error, "TimeoutException"):
        late = "" if limit is None else f" within {limit:.0f} s (HF_HUB_ETAG_TIMEOUT)"
        late = f" ({error})" if str(error).startswith("no further piece") else late
        return Answer(trouble=f"{hub} gives no whole answer{late}: check the network, or try later", absent=True)
    elif "Consistency check failed" in str(error):
        remedy = "a proxy or a login page may answer in its place; check the network and HF_ENDPOINT"
        return Answer(trouble=f"{hub} sent something else than the file that it has: {remedy}", absent=True)
    elif isinstance(error, OSError) or _is(error, "TransportError"):
        said = without_secrets(" ".join(str(error).split()))[:120] or type(error).__name__
        return Answer(trouble=f"{hub} cannot be reached ({said}): check the network and HF_ENDPOINT", absent=True)
    else:
        return Answer(trouble=f"{hub} does not answer as a hub does ({type(error).__name__}): check HF_ENDPOINT")
    return Answer(trouble=text)


def _is(error: Any, name: str) -> bool:
    """Tell an error's kind by name: the client's transport is a library of its own choice."""
    return any(cls.__name__ == name for cls in type(error).__mro__)
