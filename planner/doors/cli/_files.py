"""The files that a command reads and writes: checked before the long work, written after it."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

from apportion.errors import InputError
from apportion.planner.doors.cli._common import forget_output

if TYPE_CHECKING:
    from collections.abc import Sequence

STDIO = "-"
"""The path that stands for standard input or output."""


class Output(NamedTuple):
    """Where something is written.

    Attributes:
        option: The option that names it, for messages.
        name: The file as the user called it.
        to_stdout: Whether it is standard output, by whatever name.
    """

    option: str
    name: str
    to_stdout: bool

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self.name)


def output(option: str, name: str) -> Output:
    """Return the output that an option names.

    Raises:
        InputError: The name is empty.
    """
    if not name:
        raise InputError(f"{option} needs the name of a file, not an empty one", hint="Is a variable empty?")
    return Output(option, name, to_stdout=name == STDIO or _is_stdout(Path(name)))


def given_paths(paths: Sequence[str]) -> list[Path]:
    """Return the files and directories that the paths of a command stand for.

    A path that stands for nothing is told on standard error at once, where others are left to work on.
    """
    from apportion.planner.report.figures import plain
    from apportion.telemetry.reading import SkipLog, expand_path

    missing = SkipLog()
    found = [path for given in paths if given != STDIO for path in expand_path(given, missing)]
    if found or STDIO in paths:
        for message in missing.messages:
            typer.echo(f"warning: {plain(str(message))}", err=True)
    return found


def check_outputs(outputs: Sequence[Output], paths: Sequence[str], inputs: Sequence[Path]) -> None:
    """Refuse, before the long work, what could not be written after it, or would destroy what is read.

    Args:
        outputs: What is going to be written.
        paths: The paths of the command as they were given.
        inputs: The files and directories that they stand for.

    Raises:
        InputError: An output cannot be written, is one of the logs, or is named twice.
    """
    for number, each in enumerate(outputs):
        if not each.to_stdout:
            _check_writable(each)
            _check_no_log(each, inputs, stdin=STDIO in paths)
        for other in outputs[:number]:
            if (each.to_stdout and other.to_stdout) or _same_file(each.path, other.path):
                raise InputError(
                    f"{other.option} and {each.option} name the same file", path=each.name, hint="Name two files"
                )


def write_output(target: Output, content: str | bytes) -> None:
    """Write a content, a text as UTF-8, to a file or to standard output.

    Raises:
        InputError: It cannot be written.
        BrokenPipeError: Nobody reads standard output any more.
    """
    from apportion.files import write_atomically

    try:
        if target.to_stdout:
            typer.echo(content.encode() if isinstance(content, str) else content, nl=False)
        else:
            write_atomically(target.path, content)
    except OSError as error:
        if target.to_stdout:
            forget_output()
            if isinstance(error, BrokenPipeError):
                raise
        raise InputError(f"cannot write: {error.strerror or error}", path=target.name) from error


def _check_writable(target: Output) -> None:
    from apportion.files import is_replaced

    path = target.path
    folder = Path(os.path.realpath(path)).parent
    if path.is_dir():
        usual = f"report.{target.option.removeprefix('--')}"
        raise InputError("is a directory", path=target.name, hint=f"Name a file in it: {path / usual}")
    try:
        replaced = is_replaced(path)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror or error}", path=target.name) from error
    if not replaced:
        needed = path
    elif folder.is_dir():
        needed = folder
    else:
        shown = path.parent if path.parent.resolve() == folder else folder
        raise InputError("the directory does not exist", path=shown, hint="Create it first")
    if not os.access(needed, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise InputError("cannot be written", path=target.name, hint="Choose another file")


def _check_no_log(target: Output, inputs: Sequence[Path], *, stdin: bool) -> None:
    path = target.path
    if not path.exists():
        return
    if any(_same_file(path, each) for each in inputs) or (stdin and _is_stdin(path)):
        raise InputError(f"{target.option} would overwrite what is read", path=target.name, hint="Choose another file")
    real = Path(os.path.realpath(path))
    within = any(real.is_relative_to(os.path.realpath(each)) for each in inputs if each.is_dir())
    if within and path.is_file() and _is_log(path):
        raise InputError(
            f"{target.option} would overwrite one of the logs", path=target.name, hint="Choose another file"
        )


def _is_log(path: Path) -> bool:
    from apportion.telemetry.importers import SkipLog, find_groups

    return bool(find_groups([path], SkipLog()))


def _same_file(one: Path, other: Path) -> bool:
    """Whether two paths are one file; devices such as /dev/null may be named as often as one likes."""
    if not (one.exists() and other.exists()):
        return os.path.realpath(one) == os.path.realpath(other)
    return one.samefile(other) and not stat.S_ISCHR(one.stat().st_mode)


def _is_stdout(path: Path) -> bool:
    return path != Path(os.devnull) and _is_stream(path, sys.stdout)


def _is_stdin(path: Path) -> bool:
    return path.is_file() and _is_stream(path, sys.stdin)


def _is_stream(path: Path, stream: object) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(stream.fileno()))  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):  # not there, or a stream without a file behind it
        return False
