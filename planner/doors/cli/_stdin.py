"""Standard input is read as one log: whoever pipes several into it is told."""

from __future__ import annotations

import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from apportion.planner.doors.cli._files import STDIO

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SESSION_ID = re.compile(
    rb'(?<!\\)"sessionId"\s*:\s*"([^"\\]{1,100})"'  # Claude Code
    rb'|(?<!\\)"session_meta"\s*,\s*"payload"\s*:\s*\{\s*"id"\s*:\s*"([^"\\]{1,100})"'  # Codex
)
_OVERLAP = 256
"""Bytes of what was read before that are searched again, because an identifier may be cut in two."""


@contextmanager
def watching_standard_input(paths: Sequence[str]) -> Iterator[None]:
    """Warn on standard error if what is read from standard input holds several sessions."""
    if STDIO not in paths:
        yield
        return
    before = sys.stdin
    sys.stdin = _Watched(before)
    try:
        yield
    finally:
        sys.stdin = before


class _Watched:
    """Standard input that is looked through while it is read."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._end = b""
        self._ids: set[bytes] = set()

    def __getattr__(self, name: str) -> Any:
        """Be the stream in everything else."""
        return getattr(self._stream, name)

    @property
    def buffer(self) -> _Watched:
        """The same as bytes."""
        return self

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes; at the end, say what was seen."""
        data: bytes = self._stream.buffer.read(size)
        seen = self._end + data
        self._ids.update(one or other for one, other in _SESSION_ID.findall(seen))
        self._end = seen[-_OVERLAP:]
        if not data and len(self._ids) > 1:
            typer.echo(
                f"warning: standard input holds {len(self._ids)} session ids and is read as one log; if it is several, "
                "give their files as paths",
                err=True,
            )
            self._ids.clear()
        return data
