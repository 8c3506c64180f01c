"""Writing files so that nobody ever sees half of one, and so that what is not a file is never replaced by one."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import tempfile
from pathlib import Path

_DESCRIPTORS = re.compile(r"/dev/fd|/proc/[^/]+/(task/[^/]+/)?fd")
"""Folders whose entries are the open files of a process."""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file in a single step, creating its folder where needed; what is no regular file is written into.

    The content, a text as UTF-8, goes to a file beside, is forced to disk, and is renamed over the old one. A symbolic
    link stays one, and the permissions of an existing file are kept. A pipe, a terminal, another device or an open file
    of a process (`/dev/stdout`) is never replaced: it is written into. A block device, which holds a disk, is refused.

    Raises:
        OSError: The folder or file cannot be written; an existing file is then unchanged.
    """
    data = content.encode() if isinstance(content, str) else content
    if is_replaced(path):
        _replace(Path(os.path.realpath(path)), data)
    else:
        _write_into(path, data)


def is_replaced(path: Path) -> bool:
    """Whether writing puts a new file in place: there is none yet, or it is a regular one.

    Raises:
        OSError: The file cannot be looked at.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return not _is_descriptor(path)
    return stat.S_ISREG(mode) and not _is_descriptor(path)


def _is_descriptor(path: Path) -> bool:
    """Whether a path names an open file of a process, such as `/dev/stdout`, rather than a place in a folder."""
    for _ in range(40):  # as many links as Linux follows
        folder = Path(os.path.realpath(path.parent))
        if _DESCRIPTORS.fullmatch(str(folder)):
            return True
        if not path.is_symlink():
            return False
        path = folder / path.readlink()
    return False


def _write_into(path: Path, data: bytes) -> None:
    if stat.S_ISBLK(path.stat().st_mode):
        raise OSError(errno.EINVAL, "is a block device", str(path))
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def _replace(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:40]}.", suffix=".tmp")
    beside = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.chmod(_mode(target))
        beside.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def _mode(target: Path) -> int:
    if target.exists():
        return target.stat().st_mode & 0o7777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
