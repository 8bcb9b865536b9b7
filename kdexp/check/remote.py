"""Whether object storage can be used, said before anything is loaded."""

from __future__ import annotations

import threading
from functools import lru_cache
from urllib.parse import urlsplit

from kdexp.common.problems import near
from kdexp.store.remote import Mirror

ANSWER_S = 30.0
"""Seconds within which the storage has to answer."""


def problems(url: str | None, write: bool = True) -> list[str]:
    """Say why a URL cannot be used: unknown protocol, missing package, a password in it, no answer; [] = it works.

    Args:
        write: try to write there too (a small file ``.kdexp``).
    """
    return list(_problems(url, write)) if url else []


@lru_cache(maxsize=16)
def _problems(url: str, write: bool) -> tuple[str, ...]:
    """Look once a process."""
    from fsspec.core import get_filesystem_class
    from fsspec.registry import available_protocols

    where, password, (protocol, mark, rest) = f"runtime.remote={url}", urlsplit(url).password, url.partition("://")
    if not mark or not rest.strip("/"):
        return (f"{where} is no URL with a place in it: write s3://BUCKET/PREFIX, gs://..., or file:///FOLDER.",)
    if password:
        safe = where.replace(password, "***")
        return (f"{safe} holds a password: leave it to fsspec (environment variables, fsspec's config).",)
    try:
        get_filesystem_class(protocol)
    except ImportError as error:
        return (f"{where} needs a package that is not installed ({error}): pip install 'kdexp[s3]' for s3://.",)
    except ValueError:
        return (f"{where}: {protocol} is no protocol of fsspec.{near(protocol, available_protocols())}",)
    found: list[str] = []
    asking = threading.Thread(target=_ask, args=(url, write, found), daemon=True)
    asking.start()
    asking.join(ANSWER_S)
    if asking.is_alive():
        found.append(f"nothing answers within {ANSWER_S:.0f} s")
    return tuple(f"{where}: {text}; check the address, the network and the credentials." for text in found)


def _ask(url: str, write: bool, found: list[str]) -> None:
    mirror = Mirror(url)
    try:
        if write:
            mirror._pipe(mirror.at(".kdexp"), b"kdexp\n")
        else:
            mirror.fs.exists(mirror.at(".kdexp"))
    except Exception as error:  # each protocol has errors of its own
        lines = str(error).strip().splitlines()
        found.append(f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}")
