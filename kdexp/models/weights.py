"""Weight files that others have made: what is wrong with them, said before a number of theirs is read.

Only safetensors are loaded, and only after their headers have been read here: a pointer of git-lfs, half a download, a
size that no memory holds or a file that lies elsewhere is one sentence. Pickled weights are never opened here;
:mod:`kdexp.models.convert` makes safetensors of them when a person asks for it.

The format: 8 bytes with the header's length (little-endian), the header (JSON: name -> dtype, shape, offsets), the
numbers.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import stat
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any

Shapes = dict[str, tuple[int, ...]]

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
"""Names of files that hold pickled weights, or name such files."""

LONGEST = 25_000_000
"""Bytes of a header or an index at most, as the hub allows; those of real models have less than a million."""

BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16}
BITS |= {"I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64}
"""Size of a number by dtype."""

AGAIN = "download or save the model again"


def problems(folder: Path, source: str | None = None, place: str = "teacher") -> list[str]:
    """Say why the weights of a folder cannot be loaded; [] = nothing speaks against it.

    Args:
        folder: of a saved model, or a snapshot in the hub's cache.
        source: as in ``teacher.source``, for the command that converts pickled weights; None = the folder.
        place: the group that names it.
    """
    try:
        read(folder, source, place)
    except ValueError as error:
        return [str(error)]
    return []


def read(folder: Path, source: str | None = None, place: str = "teacher") -> Shapes:
    """Return name and shape of every weight in a folder's safetensors files; only their headers are read.

    Raises:
        ValueError: there are none, or they cannot be loaded: file, rule and remedy in a sentence.
    """
    single, index = folder / SINGLE, folder / INDEX
    if os.path.lexists(single):
        return _header(single, folder)
    if os.path.lexists(index):
        return _sharded(index, folder)
    names = sorted(path.name for path in folder.glob("*"))
    raise ValueError(none(names, str(folder), source or f"path:{folder}", place))


def shapes(folder: Path) -> Shapes | None:
    """Return what :func:`read` returns; None where it would refuse."""
    try:
        return read(folder)
    except ValueError:
        return None


def none(names: Iterable[str], where: str, source: str, place: str = "teacher") -> str:
    """Return the sentence about a model without safetensors.

    Args:
        names: its files.
        where: they are, for people.
        source: as in ``teacher.source``.
        place: the group that names it.
    """
    pickled = next((name for name in names if name in PICKLED), None)
    if pickled is None:
        return f"{where} has no weights ({SINGLE}): {AGAIN} (save_pretrained), or name another folder."
    kind, _, rest = source.partition(":")
    target = f"models/{Path(rest).name or 'model'}-safetensors"
    words = (f"source={source if kind == 'hub' else rest}", f"folder={target}")
    command = f"python -m kdexp convert {shlex.join(words)}"
    return (
        f"{where}/{pickled} is pickled, and there is no {SINGLE}: pickled weights can hold code and are never loaded. "
        f"If you trust them, convert them once: {command} (then {place}.source=path:{target})."
    )


def checksum(folder: Path) -> str:
    """Return the sha256 (hex) of a folder's weights: of ``model.safetensors``, or of its shards in order of name.

    ``cat model-*.safetensors | sha256sum`` says the same.
    """
    if (folder / SINGLE).is_file():
        paths = [folder / SINGLE]
    else:
        paths = sorted({folder / name for name in json.loads((folder / INDEX).read_text())["weight_map"].values()})
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                total.update(piece)
    return total.hexdigest()


def downloaded(folder: Path) -> bool:
    """Tell whether a snapshot of the hub has its weights; a damaged index is for :func:`problems` to name."""
    if os.path.lexists(folder / SINGLE):
        return True
    try:
        index = folder / INDEX
        return os.path.lexists(index) and all(os.path.lexists(folder / s) for s in _placed(index, folder).values())
    except ValueError:
        return True


# --- one file --------------------------------------------------------------------------------------------------------


def _plain(path: Path, folder: Path) -> int:
    """Return a file's size; refuse what is no plain file of this folder or, by a link, of the hub's cache.

    The cache keeps ``snapshots/COMMIT/NAME`` as a link into ``blobs`` of the same model.
    """
    real, home = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    home = home.parent.parent if home.parent.name == "snapshots" else home
    try:
        found = real.stat()
    except OSError as error:
        raise ValueError(f"{path} is not there or leads nowhere ({error.strerror}): {AGAIN}.") from None
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path} is no plain file but {_kind(found.st_mode)}: {AGAIN}, or name another folder.")
    if not real.is_relative_to(home):
        raise ValueError(
            f"{path} is a link to {real}, outside its folder: a model is read from one folder only; put a copy there "
            f"(cp --remove-destination {shlex.quote(str(real))} {shlex.quote(str(path))})."
        )
    return found.st_size


def _kind(mode: int) -> str:
    kinds = {"a folder": stat.S_ISDIR, "a pipe": stat.S_ISFIFO, "a socket": stat.S_ISSOCK}
    return next((name for name, test in kinds.items() if test(mode)), "a device")


def _json(path: Path, text: bytes) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise ValueError(f"{path} is damaged (its JSON cannot be read): {AGAIN}.")
    return said


def _header(path: Path, folder: Path) -> Shapes:
    """Read and check one safetensors file's header."""
    size = _plain(path, folder)
    with path.open("rb") as file:
        begin = file.read(8)
        length = int.from_bytes(begin, "little")
        if begin == b"version ":
            raise ValueError(
                f"{path} is a pointer of git-lfs, not the weights themselves: run `git lfs pull` in {folder}, or "
                "download the file."
            )
        if size < 10:
            raise ValueError(f"{path} is {'cut short' if size else 'empty'} ({size} bytes): {AGAIN}.")
        if length > LONGEST:
            raise ValueError(
                f"{path} is no safetensors file (it begins with {begin!r}, which would be a header of {length} bytes; "
                f"{LONGEST} at most): {AGAIN}."
            )
        if 8 + length > size:
            raise ValueError(f"{path} is cut short ({size} bytes, and its header alone has {length}): {AGAIN}.")
        said = _json(path, file.read(length))
    return _checked(path, said, size - 8 - length)


def _checked(path: Path, said: dict[str, Any], room: int) -> Shapes:
    """Return the shapes of a header whose parts lie in ``room`` bytes, one after another and without a gap."""
    spans, shapes = [], {}
    for name, entry in said.items():
        if name == "__metadata__":
            continue
        try:
            bits, shape, (start, stop) = BITS[entry["dtype"]], entry["shape"], entry["data_offsets"]
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{path} is damaged (what it says of {name!r:.80} cannot be read): {AGAIN}.") from None
        whole = isinstance(shape, list) and all(type(n) is int and n >= 0 for n in (*shape, start, stop))
        if not whole or prod(shape) * bits != (stop - start) * 8:
            raise ValueError(f"{path} is damaged (shape and size of {name!r:.80} differ): {AGAIN}.")
        spans.append((start, stop))
        shapes[name] = tuple(shape)
    spans.sort()
    end = max((stop for _, stop in spans), default=0)
    if end > room:
        raise ValueError(f"{path} is cut short ({room} bytes of numbers, and its header says {end}): {AGAIN}.")
    joints = [0, *(stop for _, stop in spans)]
    if end < room or [start for start, _ in spans] != joints[:-1]:
        raise ValueError(f"{path} is damaged (its weights overlap, or leave bytes over): {AGAIN}.")
    if not shapes:
        raise ValueError(f"{path} holds no weights: {AGAIN}.")
    return shapes


# --- several files ---------------------------------------------------------------------------------------------------


def _placed(index: Path, folder: Path) -> dict[str, str]:
    """Return which file holds each weight, by an index; only safetensors beside it may be named."""
    if _plain(index, folder) > LONGEST:
        raise ValueError(f"{index} is no index of weights ({index.stat().st_size} bytes, {LONGEST} at most): {AGAIN}.")
    said = _json(index, index.read_bytes())
    placed: Any = said.get("weight_map")
    named = isinstance(placed, dict) and placed and all(isinstance(name, str) for name in placed.values())
    if not named or not isinstance(said.get("metadata"), dict):
        raise ValueError(f"{index} is no index of weights (weight_map or metadata is missing): {AGAIN}.")
    for shard in sorted(set(placed.values())):
        if Path(shard).name != shard:
            raise ValueError(f"{index} names {shard!r}, outside its folder: a model is read from one folder only.")
        if not shard.endswith(".safetensors"):
            raise ValueError(
                f"{index} names {shard!r}, which is no safetensors file: pickled weights can hold code and are never "
                f"loaded; {AGAIN} with safetensors."
            )
    return placed


def _sharded(index: Path, folder: Path) -> Shapes:
    placed = _placed(index, folder)
    headers = {shard: _header(folder / shard, folder) for shard in sorted(set(placed.values()))}
    for name, shard in placed.items():
        if name not in headers[shard]:
            raise ValueError(f"{index} says that {shard} has the weight {name!r:.80}, and it has not: {AGAIN}.")
    return {name: headers[shard][name] for name, shard in placed.items()}
