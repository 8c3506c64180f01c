"""Finding and reading log files: plain, gzip or zstandard; files, directories, globs, pipes and standard input.

Nothing here knows a log format. Whatever cannot be read is noted in a `SkipLog` with file and line, and the rest
goes on.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from glob import has_magic
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from apportion.telemetry._sources import HEAD_BYTES, LogSource, Skip, SkipLog, read_up_to
from apportion.telemetry._streams import DEFAULT_LIMITS, Limits, foreign_archive
from apportion.telemetry.advice import EMPTY_FOLDER, EMPTY_PATH, HIDDEN, NO_MATCH, NO_SUCH_FILE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "DEFAULT_LIMITS",
    "HEAD_BYTES",
    "STDIN",
    "Limits",
    "LogSource",
    "Skip",
    "SkipLog",
    "expand_path",
    "find_sources",
    "foreign_archive",
]

STDIN = "-"
"""The path that stands for standard input."""


def find_sources(
    paths: Iterable[str | Path] | str | Path, skipped: SkipLog, *, limits: Limits = DEFAULT_LIMITS
) -> list[LogSource]:
    """Return the log files under the given paths, each once, in a stable order.

    A directory is walked recursively: hidden files and directories are left out, symbolic links are followed only while
    they stay inside the directory, loops are cut; each of these is counted. A path with `*`, `?` or `[` that names no
    file is taken as a glob pattern: `**` descends, and hidden files match only a pattern that names them. `-` is
    standard input; like a named pipe, it is read at once and kept in memory.

    Args:
        paths: Files, directories, patterns or `-`, or a single one of these.
        skipped: Takes note of what cannot be used.
        limits: How much of a file is read at most.
    """
    found: dict[str, LogSource] = {}
    for given in map(str, [paths] if isinstance(paths, (str, Path)) else paths):
        if given == STDIN:
            if STDIN not in found:
                _add_pipe(found, STDIN, LogSource(None, limits=limits), sys.stdin.buffer, skipped)
            continue
        for path in expand_path(given, skipped):
            folder = path if path.is_dir() else None
            for file in _walk(folder, skipped) if folder else (path,):
                key = os.path.realpath(file)
                if key not in found:
                    _add_file(found, key, LogSource(file, root=folder or path.parent, limits=limits), skipped)
    return list(found.values())


def _add_file(found: dict[str, LogSource], key: str, source: LogSource, skipped: SkipLog) -> None:
    assert source.path is not None
    mode = _mode(source.path, skipped)
    if mode is None:
        return
    if stat.S_ISREG(mode):
        found[key] = source
    elif stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        try:
            with source.path.open("rb") as pipe:
                _add_pipe(found, key, source, pipe, skipped)
        except OSError as error:
            skipped.file(source.path, f"cannot open: {error.strerror or error}")
    else:
        skipped.file(source.path, "not a regular file")


def _add_pipe(found: dict[str, LogSource], key: str, source: LogSource, pipe: BinaryIO, skipped: SkipLog) -> None:
    limit = source.limits.document_bytes
    try:
        data = b"".join(read_up_to(pipe.read, limit + 1))
    except OSError as error:
        skipped.file(source.label, f"cannot read: {error.strerror or error}")
        return
    if len(data) > limit:
        skipped.file(source.label, f"more than {limit} bytes through a pipe: save them to a file first")
    else:
        found[key] = LogSource(source.path, root=source.root, data=data, limits=source.limits)


def expand_path(given: str, skipped: SkipLog) -> list[Path]:
    """Return the files and directories that one given path stands for, without reading any of them.

    Args:
        given: A file, a directory or a glob pattern; not `-`.
        skipped: Takes note of the path where it stands for nothing.
    """
    if not given:
        skipped.file("''", EMPTY_PATH)
        return []
    path = Path(os.path.expanduser(given))  # noqa: PTH111  (the method raises where there is no home)
    try:
        path.stat()
    except FileNotFoundError:
        return _glob(given, path, skipped)
    except (OSError, ValueError) as error:
        skipped.file(given, f"cannot open: {getattr(error, 'strerror', None) or error}")
        return []
    return [path]


def _glob(given: str, path: Path, skipped: SkipLog) -> list[Path]:
    if not has_magic(given):
        skipped.file(given, NO_SUCH_FILE)
        return []
    literal = next(number for number, part in enumerate(path.parts) if has_magic(part))
    base, wild = Path(*path.parts[:literal]), path.parts[literal:]
    shows_hidden = any(part.startswith(".") for part in wild)
    try:
        matches = sorted(base.glob("/".join(wild)))  # its `**` does not follow symbolic links, so it ends
    except (OSError, ValueError) as error:
        skipped.file(given, f"not a usable glob pattern: {error}")
        return []
    if not shows_hidden:
        matches = [match for match in matches if not _is_hidden(match.relative_to(base))]
    if not matches:
        skipped.file(given, NO_MATCH)
    return matches


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _walk(root: Path, skipped: SkipLog) -> Iterator[Path]:
    real_root = Path(os.path.realpath(root))
    seen: set[str] = set()
    before, files_found = skipped.files, 0

    def report(error: OSError) -> None:
        skipped.file(error.filename or root, f"cannot open: {error.strerror or error}")

    def usable(path: Path) -> bool:
        if path.name.startswith("."):
            skipped.file(path, HIDDEN)
            return False
        inside = Path(os.path.realpath(path)).is_relative_to(real_root)
        if not inside:
            skipped.file(path, "symbolic link leads outside the directory")
        return inside

    for name, folders, files in os.walk(root, followlinks=True, onerror=report):
        folder, real = Path(name), os.path.realpath(name)
        if real in seen:
            skipped.file(folder, "symbolic link to a directory that is read already", unused=True)
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [each for each in sorted(folders) if usable(folder / each)]
        for file in sorted(files):
            if usable(folder / file):
                files_found += 1
                yield folder / file
    if not files_found and skipped.files == before:
        skipped.file(root, EMPTY_FOLDER)


def _mode(path: Path, skipped: SkipLog) -> int | None:
    try:
        return path.stat().st_mode
    except OSError as error:
        reason = f"cannot open: {error.strerror or error}"
        if error.errno in {errno.ENOENT, errno.ELOOP} and path.is_symlink():
            reason = "symbolic link leads nowhere" if error.errno == errno.ENOENT else "symbolic link leads to itself"
        skipped.file(path, reason)
        return None
