"""Texts as they may leave the program, for a file, a terminal or a tracking store: no secrets, no control characters.

Two nets, as neither is whole alone. By form: what stands where addresses and headers have their secrets, and what looks
like a token of a known kind. By word: what this process has been told, in its configuration's addresses
(:func:`learn`) or in the environment, wherever a library's message repeats it.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
import unicodedata
import warnings
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, unquote

HIDDEN = "***"
SHORTEST = 4
"""Letters from which on a word is looked for everywhere; shorter ones are hidden by their place only."""

HARMLESS = (
    "cache", "charset", "check_same_thread", "connect_timeout", "host", "immutable", "isolation_level", "mode",
    "nolock", "pool_size", "port", "region", "revision", "sslmode", "timeout", "unix_socket", "uri", "version", "vfs",
)  # fmt: skip
"""Parameters of an address whose values are shown; all others may be secrets, under whatever name."""

SECRET_NAME = re.compile(
    r"(?i)(token|secret|password|passwd|_pwd|credential|api_?key|access_?key|private_?key|secret_?key|account_?key"
    r"|connection_?string)(_|$)"
)
"""Names, of variables of the environment and of parameters, behind which a secret stands."""

TOKENS = re.compile(
    r"""(?x)
    \b(?:hf|api_org)_[A-Za-z0-9]{8,}              # Hugging Face
    | \b(?:AKIA|ASIA|AGPA|AIDA|AROA)[A-Z0-9]{12,} # AWS
    | \bgh[pousr]_[A-Za-z0-9]{16,} | \bgithub_pat_\w{16,} | \bglpat-[\w-]{16,}
    | \bsk-[\w-]{16,} | \bxox[abeprs]-[\w-]{8,} | \bya29\.[\w-]{8,} | \bAIza[\w-]{20,} | \bdapi[0-9a-f]{16,}
    | \beyJ[\w-]{6,}\.[\w-]{6,}\.[\w-]*           # JSON web tokens
    """
)
HEADER = re.compile(
    r"(\b[Bb]earer\s+|\bBasic\s+(?=\S*[\d=+/])|\b[Aa]uthorization[\"']?\s*[:=]\s*[\"']?(?:\w+\s+)?)(?!\*\*\*)[\w.~+/=-]{8,}"
)
NAMED = re.compile(
    r"(?i)((?<![a-z])(?:password|passwd|pwd|secret|client_secret|api[_-]?key|access[_-]?key(?:[_-]?id)?|account[_-]?key"
    r"|secret[_-]?(?:access[_-]?)?key|(?:auth|access|session|refresh|hf|security)[_-]?token)"
    r"[\"']?\s*[=:]\s*)(?:\"[^\"\n]*\"|'[^'\n]*'|[^\s,;&\"'})\]]+)"
)
ADDRESS = r"[A-Za-z][A-Za-z0-9+.-]*://(?!/)"
"""The beginning of an address with a host."""
USER = re.compile(rf"({ADDRESS})([^\s'\"<>]*)@")
SPACED_PASSWORD = re.compile(rf"({ADDRESS})[^\s:/@'\"]*:(?!\d+(?:[/\s)?'\",;.]|$))[^/\n][^\n@]*@")
"""A password with blanks or quotes in it, inside a sentence; a number and a slash are a port."""
PARAMETER = re.compile(r"([?&])([\w.%~-]+)=(\"[^\"\n]*\"|'[^'\n]*'|[^&\s'\"#)\]}>,]*)")

_known: set[str] = set()


# --- secrets ---------------------------------------------------------------------------------------------------------


def learn(value: Any) -> None:
    """Remember the secrets in the addresses of any number of settings, as long as the process lasts."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple | set):
        for item in value:
            learn(item)
    elif isinstance(value, str) and "://" in value:
        for secret in _in_address(value):
            _known.update(form for form in {secret, unquote(secret), quote(secret, safe="")} if len(form) >= SHORTEST)


def _in_address(address: str) -> list[str]:
    """Return the secrets of one address; nothing else stands in the text."""
    rest = address.partition("://")[2]
    if rest.startswith("/"):  # a file
        return []
    before, at, _ = rest.rpartition("@")
    if at and _in_query(before):
        before = ""
    user, colon, password = before.partition(":")
    secrets = [password] if colon and "/" not in user else []
    secrets += [user] if len(user) >= 12 else []  # a token as the name
    for part in rest.partition("?")[2].split("&"):
        name, _, value = part.partition("=")
        if not _harmless(name) and (SECRET_NAME.search(name) or len(value) >= 12):
            secrets += [value, value.strip("'\"")]
    return [secret for secret in secrets if secret]


def _harmless(parameter: str) -> bool:
    return parameter.lower() in HARMLESS


def _of_environment() -> Iterable[str]:
    return (value for name, value in os.environ.items() if SECRET_NAME.search(name) and len(value) >= 8)


def _told() -> list[str]:
    """Return what this process knows to be a secret, the longest first."""
    return sorted({*_known, *_of_environment()}, key=len, reverse=True)


def without_secrets(text: str, told: Iterable[str] | None = None) -> str:
    """Return a text in which every secret is ``***``.

    Those of addresses (``scheme://user:password@host?key=value``) and headers, ``password=...``, tokens of known kinds,
    and whatever this process knows to be one.

    Args:
        told: what it knows, of a caller with many texts; None = it is asked.
    """
    for secret in _told() if told is None else told:
        text = text.replace(secret, HIDDEN)
    if "://" in text:
        text = SPACED_PASSWORD.sub(rf"\1{HIDDEN}@", USER.sub(_hidden_user, text))
    text = PARAMETER.sub(lambda found: found[0] if _harmless(found[2]) else f"{found[1]}{found[2]}={HIDDEN}", text)
    text = HEADER.sub(rf"\1{HIDDEN}", text)
    return TOKENS.sub(HIDDEN, NAMED.sub(rf"\1{HIDDEN}", text))


def _hidden_user(found: re.Match[str]) -> str:
    return found[0] if _in_query(found[2]) else f"{found[1]}{HIDDEN}@"


def _in_query(before: str) -> bool:
    """Whether the ``@`` after a text that begins with a host, or with a user, belongs to a parameter's value."""
    head, _, parameters = before.partition("?")
    has_password = re.match(r"[^/:]*:(?!\d+(?:/|$))", head)
    return "=" in parameters and "@" not in head and not has_password


def public(value: Any) -> Any:
    """Return settings, nested or not, with every text's secrets hidden; a text that is an address is read as one."""
    told, shown = _told(), dict[str, str]()

    def open_to_all(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: open_to_all(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [open_to_all(inner) for inner in value]
        if not isinstance(value, str):
            return value
        if value not in shown:  # thousands of points say much the same
            text = value
            for secret in sorted(_in_address(text), key=len, reverse=True) if "://" in text else ():
                text = text.replace(secret, HIDDEN)
            shown[value] = without_secrets(text, told)
        return shown[value]

    return open_to_all(value)


def bare_address(url: str | None) -> str | None:
    """Return a database's address as it may be written down, without its secrets, so that it can be opened again where
    these are known otherwise."""
    from sqlalchemy.engine import URL, make_url

    if url is None:
        return None
    parts = make_url(url)._asdict()
    query = {key: value for key, value in parts["query"].items() if _harmless(key)}
    user = parts["username"] if len(parts["username"] or "") < 16 else None  # a token as the name
    return URL.create(**{**parts, "username": user, "password": None, "query": query}).render_as_string()


# --- control characters ----------------------------------------------------------------------------------------------


def printable(text: str) -> str:
    """Return a text in which what steers a terminal or turns the direction of letters is written out (``\\x1b``); lines
    and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(sign if sign in "\n\t" or not _steers(sign) else _written(sign) for sign in text)


def one_line(text: str) -> str:
    """Return a text as one line: :func:`printable`, blanks for lines and tabs."""
    return " ".join(printable(text).split())


def outward(text: str) -> str:
    """Return a text as it may leave the program: no secrets, no control characters."""
    return printable(without_secrets(text))


def _steers(sign: str) -> bool:
    return unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Zl", "Zp") and sign not in "\u200c\u200d\u00ad"  # of words


def _written(sign: str) -> str:
    code = ord(sign)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


class Formatter(logging.Formatter):
    """Writes log records as they may leave the program, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line or lines."""
        return outward(super().format(record))


def clean_terminal(log: bool = True) -> None:
    """Have what Python itself prints of this process (log lines, warnings, tracebacks) pass :func:`outward`.

    Args:
        log: print log lines; False = somebody else does.
    """
    if log:
        logging.basicConfig(level=logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(Formatter("%(message)s"))
    plain = warnings.formatwarning
    warnings.formatwarning = lambda *args, **kwargs: outward(plain(*args, **kwargs))
    sys.excepthook = lambda kind, error, trace: print_traceback(error)


def print_traceback(error: BaseException) -> None:
    """Print an exception as Python does, without secrets."""
    print(outward("".join(traceback.format_exception(error))), end="", file=sys.stderr)
