"""Whether the model and data hub answers; asked once a process, in seconds rather than in retries."""

from __future__ import annotations

import os
import socket
from functools import lru_cache
from urllib.parse import urlsplit


@lru_cache(maxsize=1)
def silence(timeout: float = 5.0) -> str | None:
    """Return a half-sentence that says why the hub does not answer, or None if it does (or a proxy decides)."""
    from huggingface_hub import constants

    if os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy"):
        return None
    address = urlsplit(constants.ENDPOINT)
    try:
        with socket.create_connection((address.hostname, address.port or 443), timeout=timeout):
            return None
    except OSError as error:
        return f"the hub ({address.hostname}) does not answer ({error})"
