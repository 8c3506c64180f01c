"""Finds bits that flipped on a disk: files whose content changed although nobody wrote them.

    seals = Seals(path)
    seals.verdict(file)        # Verdict.INTACT, DAMAGED, WRITTEN or UNSEALED
    seals.renew([file])

A seal is a file's size, time of change, and SHA-256. A write changes the time; a disk that forgets does not. So another
content at the same time is damage for certain, wherever in the file it is, also where no reader would notice. A file
that was written since is not judged: its own checks do that.
"""

from __future__ import annotations

import hashlib
import json
import time
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from apportion.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SETTLED_S = 0.05
"""How long ago a change must be, in seconds, for a later one to get another time; file systems count in steps."""

_BLOCK = 2**20
_MAX_BYTES = 16 * 2**20


class Verdict(StrEnum):
    """What a seal says of a file."""

    INTACT = "intact"
    """It is as it was sealed, to the last bit."""
    DAMAGED = "damaged"
    """Its content is another one, and nobody wrote it."""
    WRITTEN = "written"
    """It was written since it was sealed."""
    UNSEALED = "unsealed"
    """It was never sealed."""
    MISSING = "missing"
    """It was sealed and is gone."""


class Seal(NamedTuple):
    """What a file was like.

    Attributes:
        size: Its bytes.
        modified_ns: When it was written, in nanoseconds since 1970.
        sha256: Digest of its content, in hexadecimal digits.
    """

    size: int
    modified_ns: int
    sha256: str


class Seals:
    """The seals of some files, kept in a file of their own.

    Args:
        path: That file; it need not exist.

    Attributes:
        problem: Why the seals cannot be used, or `None`. All files count as never sealed then.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem: str | None = None
        self._seals: dict[str, Seal] = {}
        try:
            self._seals = _read(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            self.problem = f"cannot be read: {error.strerror or error}"
        except (ValueError, TypeError, KeyError, RecursionError):
            self.problem = "is damaged"

    @property
    def files(self) -> tuple[str, ...]:
        """The files that are sealed."""
        return tuple(self._seals)

    def verdict(self, file: Path) -> Verdict:
        """Return what the seal of a file says.

        Raises:
            OSError: The file cannot be read.
        """
        seal = self._seals.get(str(file))
        if seal is None:
            return Verdict.UNSEALED
        try:
            found = file.stat()
        except FileNotFoundError:
            return Verdict.MISSING
        if found.st_mtime_ns != seal.modified_ns:
            return Verdict.WRITTEN
        same = found.st_size == seal.size and _digest(file) == seal.sha256
        return Verdict.INTACT if same else Verdict.DAMAGED

    def renew(self, files: Iterable[Path]) -> None:
        """Seal these files as they are now, and forget all others.

        Waits until the last change of each is a moment ago, so that a later one gets another time.

        Raises:
            OSError: One of them, or the file of seals, cannot be read or written.
        """
        self._seals = {str(file): _seal(file) for file in files}
        self.problem = None
        body = {name: list(seal) for name, seal in self._seals.items()}
        write_atomically(self.path, json.dumps({"seals": body, "sha256": _hash_of(body)}, indent=1) + "\n")


def _seal(file: Path) -> Seal:
    found = file.stat()
    time.sleep(max(0.0, min(SETTLED_S, found.st_mtime + SETTLED_S - time.time())))
    return Seal(found.st_size, found.st_mtime_ns, _digest(file))


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _read(path: Path) -> dict[str, Seal]:
    with path.open("rb") as file:
        whole = json.loads(file.read(_MAX_BYTES))
    body = whole["seals"]
    if _hash_of(body) != whole["sha256"]:
        raise ValueError("another checksum")
    return {name: Seal(*seal) for name, seal in body.items()}


def _hash_of(body: object) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
