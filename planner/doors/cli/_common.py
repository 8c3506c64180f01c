"""What all commands share: messages on standard error, exit codes, and JSON on standard output."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from apportion.errors import ApportionError

USER_ERROR = 2
"""Exit code of a user's mistake, as for wrong options."""

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

TERMINATED = 143
"""Exit code after a request to end (SIGTERM), as shells have it."""

BROKEN_PIPE = 1
"""Exit code when the reader of our output has gone, as typer has it."""


WIDTH = 80
"""Columns that output fits, except for paths and names that are longer."""


def complain(message: str, hint: str | None = None) -> None:
    """Say on standard error what went wrong and what to do next."""
    typer.secho(f"error: {message}", fg=typer.colors.RED, err=True)
    if hint:
        typer.echo(f"hint: {hint}", err=True)


def complain_of(error: ApportionError) -> None:
    """Say on standard error what an error says: the message with its place, then the hint."""
    complain(str(error).removesuffix(f". {error.hint}") if error.hint else str(error), error.hint)


def say(text: str = "") -> None:
    """Print one or more lines on standard output; what its encoding lacks becomes a question mark."""
    encoding = sys.stdout.encoding or "utf-8"
    typer.echo(text.encode(encoding, "replace").decode(encoding))


def print_json(value: Any) -> None:
    """Print a value as indented JSON; with escapes where a name from a log or file system is not Unicode text."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    if any("\ud800" <= char <= "\udfff" for char in text):
        text = json.dumps(value, indent=2, default=str)
    typer.echo(text.encode())  # JSON is UTF-8, whatever the terminal's encoding is


def forget_output() -> None:
    """Send what is still buffered for standard output nowhere, because nobody reads it any more."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())


class Interrupts:
    """What Ctrl-C does during long work: it is answered at once, and quick presses count as one.

    The first press stops the work, and what was done so far is reported. Whoever presses several times in a hurry does
    not lose that report; another press, later, gives it up.

    Args:
        timer: Tells the time in seconds; for tests.
    """

    def __init__(self, timer: Callable[[], float] = time.monotonic) -> None:
        self.reportable = False
        """Whether there is something to report already; set by the work."""
        self._timer = timer
        self._pressed: float | None = None

    @property
    def pressed(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self._pressed is not None

    def press(self, _number: int = signal.SIGINT, _frame: FrameType | None = None) -> None:
        """Take a press of Ctrl-C.

        Raises:
            KeyboardInterrupt: It counts.
        """
        now = self._timer()
        if self._pressed is not None and now - self._pressed < HURRY_S:
            return
        if self._pressed is None and self.reportable:
            _write_at_once(STOPPING)
        self._pressed = now
        raise KeyboardInterrupt


HURRY_S = 1.0
"""Presses of Ctrl-C within so many seconds count as one."""

STOPPING = "stopping; writing the partial report (Ctrl-C again to give up)"
"""The answer to Ctrl-C when there is something to report."""


def _write_at_once(message: str) -> None:
    """Write to standard error from a signal handler, where its buffer may be in use; over a progress bar, if any."""
    clear = "\r\x1b[2K" if sys.stderr.isatty() else ""
    with suppress(OSError):
        os.write(2, f"{clear}{message}\n".encode())


@contextmanager
def interrupts() -> Iterator[Interrupts]:
    """Let Ctrl-C be what `Interrupts` describes, unless something else than Python's own handler is in force."""
    found = Interrupts()
    if threading.current_thread() is not threading.main_thread():  # which alone may listen to signals
        yield found
        return
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        yield found
        return
    signal.signal(signal.SIGINT, found.press)
    try:
        yield found
    finally:
        # After a press the command is over: the last of several quick presses must not kill it while Python ends.
        signal.signal(signal.SIGINT, signal.SIG_IGN if found.pressed else before)


@contextmanager
def ending_in_order_when_asked() -> Iterator[None]:
    """Let a request to end (SIGTERM) unwind like Ctrl-C meanwhile, so that worker processes end too."""

    def end(_number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(TERMINATED)

    if threading.current_thread() is not threading.main_thread():  # which alone may listen to signals
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


@contextmanager
def collecting_no_garbage() -> Iterator[None]:
    """Import much without looking for garbage meanwhile: that makes hundreds of classes, and they all stay."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
