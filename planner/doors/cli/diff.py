"""The command `apportion diff`."""

from __future__ import annotations

import json
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apportion.planner.doors.cli._common import WIDTH, say
from apportion.planner.doors.cli._files import Output, check_outputs, output, write_output
from apportion.planner.doors.cli._json import JsonFileCommand

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apportion.compression.diff import Changes, Context, Envelope

SCHEMA = "apportion.diff/1"
"""Name of the JSON form."""

HONEST = (
    "A model is spared these tokens only where it has the base in its prompt already. Elsewhere a delta saves "
    "transport and storage, not tokens."
)


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        "diff", cls=JsonFileCommand, no_args_is_help=True, short_help="Show or apply what changed between two contexts."
    )(diff_command)


def diff_command(
    base_file: Annotated[str, typer.Argument(metavar="BASE", help="What the receiver holds.", show_default=False)],
    target_file: Annotated[
        str | None, typer.Argument(metavar="TARGET", help="What it is to get.", show_default=False)
    ] = None,
    *,
    apply_file: Annotated[
        str | None, typer.Option("--apply", metavar="DELTA", help="Apply a delta to BASE and write what it gives.")
    ] = None,
    output_file: Annotated[
        str | None,
        typer.Option("--output", metavar="FILE", help="Write the delta there, or what it gives; - prints it."),
    ] = None,
    json_file: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE", help="Write the figures as JSON; - prints them instead of the text."),
    ] = None,
    compact: Annotated[
        bool, typer.Option("--compact", help="Write the delta as zstd: shorter, but only machines can read it.")
    ] = False,
    show: Annotated[bool, typer.Option("--show", help="Show the delta as a model would read it.")] = False,
) -> None:
    """Show or apply what changed between two contexts.

    Requests, lists of messages and JSON lines are compared message by message; any other file is one piece. A delta is
    tried before it is written, and what it gives is compared by hash when it is applied. Where a delta is not worth it,
    the whole is written, with the reason.

    \b
    Examples:
      apportion diff turn-3.json turn-4.json --output turn-4.delta
      apportion diff turn-3.json --apply turn-4.delta --output turn-4.json
    """  # noqa: D301  (\b keeps the lines of the examples apart)
    from apportion.errors import InputError

    if (target_file is None) == (apply_file is None):
        raise InputError("name either a TARGET or a delta with --apply", hint="See apportion diff --help.")
    inputs = [name for name in (base_file, target_file, apply_file) if name is not None]
    outputs = [output(name, file) for name, file in (("--output", output_file), ("--json", json_file)) if file]
    check_outputs(outputs, inputs, [Path(name) for name in inputs])
    target = outputs[0] if output_file else None
    figures = outputs[-1] if json_file else None
    if apply_file is not None:
        _apply(base_file, apply_file, target)
    elif target_file is not None:
        _compare(base_file, target_file, target, figures, compact=compact, show=show)


def read_file(name: str) -> Context:
    """Return the context of a file.

    Raises:
        InputError: The file is larger than what is compared.
    """
    from apportion.compression.diff import read_context
    from apportion.compression.diff.delta import MAX_BYTES
    from apportion.errors import InputError

    data = Path(name).read_bytes()
    if len(data) > MAX_BYTES:
        raise InputError(f"has {len(data):,} bytes; {MAX_BYTES:,} are compared", path=name, hint="Split the file.")
    return read_context(data)


def write_bytes(target: Output, data: bytes) -> None:
    """Write bytes to a file in a single step, or to standard output."""
    from apportion.files import is_replaced

    try:
        write_output(target, data.decode())
    except UnicodeDecodeError:
        if target.to_stdout:
            typer.echo(data, nl=False)
        elif is_replaced(target.path):
            partial = target.path.with_name(f".{target.path.name[:40]}.partial")
            partial.write_bytes(data)
            partial.replace(target.path)
        else:
            with target.path.open("ab") as file:
                file.write(data)


def sections_text(changes: Changes) -> str:
    """Say of how many sections a delta says what."""
    return ", ".join(f"{number:,} {name}" for name, number in changes._asdict().items())


def _apply(base_file: str, apply_file: str, target: Output | None) -> None:
    from apportion.compression.diff import Envelope, open_envelope
    from apportion.compression.diff.reading import join_context
    from apportion.errors import InputError

    if target is None:
        raise InputError("--apply needs --output FILE", hint="--output - prints what the delta gives.")
    base = read_file(base_file)
    envelope = Envelope.from_text(Path(apply_file).read_bytes())
    context = open_envelope(envelope, {base.digest: base})
    write_bytes(target, join_context(context))
    if not target.to_stdout:
        say(f"wrote {target.name}: {context.size:,} bytes, as the delta says they must be")


def _compare(
    base_file: str, target_file: str, written: Output | None, figures: Output | None, *, compact: bool, show: bool
) -> None:
    from apportion.compression.diff import Form, enclose, open_envelope
    from apportion.compression.strategies.types import count_bytes

    base, target = read_file(base_file), read_file(target_file)
    start = time.perf_counter()
    envelope = enclose(target, base)
    made = time.perf_counter()
    context = open_envelope(envelope, {base.digest: base})
    opened = time.perf_counter()
    frame = enclose(target, base, form=Form.ZSTD)
    shown = {
        "schema": SCHEMA,
        "base": {"digest": base.digest, "sections": len(base.sections), "bytes": base.size},
        "target": {
            "digest": target.digest,
            "sections": len(target.sections),
            "bytes": target.size,
            "tokens": target.tokens(count_bytes),
        },
        "form": envelope.form.value,
        "reason": None if envelope.reason is None else envelope.reason.value,
        "bytes": len(envelope.data),
        "tokens": count_bytes(envelope.data),
        "zstd_bytes": len(frame.data) if frame.form is Form.ZSTD else None,
        "changes": None if envelope.changes is None else envelope.changes._asdict(),
        "exact": context.sections == target.sections,
        "make_ms": (made - start) * 1e3,
        "apply_ms": (opened - made) * 1e3,
    }
    if written is not None:
        write_output(written, (frame if compact else envelope).to_text() + "\n")
    if figures is not None:
        write_output(figures, json.dumps(shown, indent=2) + "\n")
    if not any(each is not None and each.to_stdout for each in (written, figures)):
        _show(shown, envelope, written, show=show)


def _show(shown: dict[str, Any], envelope: Envelope, written: Output | None, *, show: bool) -> None:
    target = shown["target"]
    say(f"target    {target['sections']:,} sections, {target['bytes']:,} bytes, {target['tokens']:,} tokens")
    if envelope.changes is None:
        say(f"whole     no delta: {_why(envelope)}")
    else:
        saved = 1 - shown["tokens"] / target["tokens"] if target["tokens"] else 0.0
        say(f"delta     {shown['bytes']:,} bytes, {shown['tokens']:,} tokens: {saved:.1%} saved")
        say(f"sections  {sections_text(envelope.changes)}")
    if shown["zstd_bytes"] is not None:
        say(f"compact   {shown['zstd_bytes']:,} bytes, for machines")
    say(
        f"checked   gives the target byte for byte; {shown['make_ms']:.1f} ms to make, {shown['apply_ms']:.1f} to apply"
    )
    if written is not None:
        say(f"wrote     {written.name}")
    if show:
        _show_lines(envelope.data.decode("utf-8", "replace").splitlines())
    say()
    say(textwrap.fill(HONEST, WIDTH))


def _why(envelope: Envelope) -> str:
    return "unknown" if envelope.reason is None else envelope.reason.value.replace("_", " ")


def _show_lines(lines: Sequence[str]) -> None:
    from apportion.planner.report.figures import plain

    say()
    for line in lines:
        say(plain(line))
