"""What must not be written down: passwords in addresses."""

from __future__ import annotations

import re

QUERY = ("password", "passwd", "pwd", "passfile", "sslpassword", "token", "secret")
"""Parameters of an address that are, or lead to, a password."""


def without_passwords(text: str) -> str:
    """Return a text in which addresses (``scheme://user:password@host?password=...``) have ``***`` for passwords."""
    text = re.sub(r"(://[^\s:/@]*):[^\s/@]*@", r"\1:***@", text)
    return re.sub(rf"(?i)([?&](?:{'|'.join(QUERY)})=)[^&\s'\"]+", r"\1***", text)


def bare_address(url: str | None) -> str | None:
    """Return a database's address without its password, as it may be written down."""
    from sqlalchemy.engine import URL, make_url

    if url is None:
        return None
    parts = make_url(url)._asdict()
    query = {key: value for key, value in parts["query"].items() if key.lower() not in QUERY}
    return URL.create(**{**parts, "password": None, "query": query}).render_as_string()
