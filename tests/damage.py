"""What disks, power cuts and people do to files: each kind of damage as a function of a path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def _flip(path: Path) -> None:
    """Turn one bit of the last digit or letter, so that JSON stays JSON."""
    content = bytearray(path.read_bytes())
    place = max(i for i, byte in enumerate(content) if chr(byte).isalnum())
    content[place] ^= 1
    path.write_bytes(content)


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _other(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


DAMAGE: dict[str, Callable[[Path], None]] = {
    "empty": _other(b""),
    "cut": _half,
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)) and None,
    "junk": _other(b"\xff\xfe\x00{not json"),
    "null": _other(b"null\n"),
    "object": _other(b"{}\n"),
    "list": _other(b"[]\n"),
    "number": _other(b"5\n"),
    "text": _other(b'"text"\n'),
    "flipped": _flip,
}
"""Name -> what it does to a file in place. A file with a second name (a hard link) is damaged under both."""
