"""Whether object storage can be used, said before anything is loaded."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import urlsplit

from kdexp.common.problems import near
from kdexp.store.remote import ANSWER_S, RemoteStore


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
    remote = RemoteStore(url)
    try:
        remote.limited(ANSWER_S, lambda: remote.probe(write))
    except Exception as error:  # each protocol has errors of its own
        lines = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"
        return (f"{where}: {reason}; check the address, the network and the credentials.",)
    return ()
