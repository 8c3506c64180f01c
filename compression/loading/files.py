"""Reading files of a folder, and nothing outside it: links are followed only while they stay inside."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from apportion.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apportion.compression.loading.types import LoadLimits

LEFT_OUT = frozenset({"node_modules", "__pycache__", "venv", "site-packages"})
"""Folders that hold what others wrote, and much of it."""


class Stamp(NamedTuple):
    """By what a changed file is told without reading it."""

    modified_ns: int
    size: int
    inode: int


def read_inside(root: Path, path: Path, max_bytes: int) -> tuple[bytes, Stamp]:
    """Return the content of a regular file below a folder, and its stamp.

    Raises:
        InputError: It lies outside the folder, is no regular file, is too large, or cannot be read.
    """
    real = real_inside(root, path)
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        with open(os.open(real, flags), "rb") as file:  # noqa: PTH123  (a descriptor, not a path)
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode):
                raise InputError("is no regular file", path=path)
            if state.st_size > max_bytes:
                raise InputError(f"has {state.st_size:,} bytes, more than {max_bytes:,}", path=path)
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", path=path) from None
    except ValueError:  # a NUL in the name
        raise InputError("is no file name", path=path) from None
    if len(content) > max_bytes:
        raise InputError(f"grew beyond {max_bytes:,} bytes while it was read", path=path)
    real_inside(root, path)  # a folder that was swapped for a link meanwhile leads elsewhere now
    return content, _stamp(state)


def stamp_of(path: Path) -> Stamp | None:
    """Return the stamp of a file, or `None` where there is none."""
    try:
        return _stamp(path.stat())
    except (OSError, ValueError):
        return None


def real_inside(root: Path, path: Path) -> Path:
    """Return where a path really leads.

    Raises:
        InputError: That is outside the folder.
    """
    try:
        real, base = Path(os.path.realpath(path)), Path(os.path.realpath(root))
    except (OSError, ValueError):
        raise InputError("is no file name", path=path) from None
    if not real.is_relative_to(base):
        raise InputError("leads out of its folder", path=path, hint="Give the folder it really lies in.")
    return real


def walk(root: Path, limits: LoadLimits) -> Iterator[Path]:
    """Yield the files below a folder in order, hidden folders but `.claude` left out; loops of links end.

    Raises:
        InputError: There are more than the limit.
    """
    seen: set[str] = set()
    count = 0
    waiting = [(root, 0)]
    while waiting:
        folder, depth = waiting.pop()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        try:
            names = sorted(path.name for path in folder.iterdir())
        except OSError:
            continue
        below = []
        for name in names:
            path = folder / name
            if path.is_dir():
                if depth < limits.depth and _enters(root, path):
                    below.append((path, depth + 1))
                continue
            count += 1
            if count > limits.files:
                raise InputError(f"holds more than {limits.files:,} files", path=root, hint="Give a narrower folder.")
            yield path
        waiting.extend(reversed(below))


def _enters(root: Path, folder: Path) -> bool:
    name = folder.name
    if name in LEFT_OUT or (name.startswith(".") and name != ".claude"):
        return False
    try:
        real_inside(root, folder)
    except InputError:
        return False
    return True


def _stamp(state: os.stat_result) -> Stamp:
    return Stamp(state.st_mtime_ns, state.st_size, state.st_ino)
