"""The command `apportion handoff`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer

from apportion.planner.doors.cli._common import say
from apportion.planner.doors.cli._files import Output, check_outputs, output, write_output
from apportion.planner.doors.cli.diff import read_file, write_bytes

if TYPE_CHECKING:
    from apportion.compression.diff import Context
    from apportion.compression.handoff import Party


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("handoff", no_args_is_help=True, short_help="Write or read a message that hands work to an agent.")(
        handoff_command
    )


def handoff_command(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help="The context; with --read, a message.", show_default=False),
    ],
    *,
    read: Annotated[bool, typer.Option("--read", help="Read a message and write its context.")] = False,
    source: Annotated[
        str, typer.Option("--from", metavar="ID:TYPE", help="Who hands over, for example lead-1:lead.")
    ] = "sender:agent",
    target: Annotated[
        str, typer.Option("--to", metavar="ID:TYPE", help="Who is handed to, for example tester-2:tester.")
    ] = "receiver:agent",
    task: Annotated[str, typer.Option("--task", metavar="TEXT", help="What is to be done.")] = "",
    bases: Annotated[
        list[str] | None,
        typer.Option("--base", metavar="FILE", help="A context that was sent before, or is held; repeatable."),
    ] = None,
    reply: Annotated[
        str | None,
        typer.Option("--reply", metavar="FILE", help="A message of the receiver, which says what it understands."),
    ] = None,
    held: Annotated[
        bool, typer.Option("--held", help="The receiver understands deltas and holds what --base names.")
    ] = False,
    output_file: Annotated[
        str | None, typer.Option("--output", metavar="FILE", help="Write the message, or its context; - prints it.")
    ] = None,
) -> None:
    """Write or read a message that hands work to an agent.

    The message follows the schema of Mycelium (docs/handoff.schema.json). It carries a delta where the receiver says
    that it understands deltas and holds one of the bases, and the whole context otherwise.

    \b
    Examples:
      apportion handoff context.json --to t-2:tester --output handoff.json
      apportion handoff handoff.json --read --output context.json
    """  # noqa: D301  (\b keeps the lines of the examples apart)
    from apportion.errors import InputError

    if output_file is None:
        raise InputError("handoff needs --output FILE", hint="--output - prints it.")
    written = output("--output", output_file)
    inputs = [file, *(bases or []), *([reply] if reply else [])]
    check_outputs([written], inputs, [Path(name) for name in inputs])
    contexts = [read_file(name) for name in bases or []]
    known = {context.digest: context for context in contexts}
    if read:
        _read(file, written, known)
    else:
        parties = _party(source), _party(target)
        _write(file, written, known, parties=parties, task=task, reply=reply, held=held)


def _party(text: str) -> Party:
    from apportion.compression.handoff import Party
    from apportion.errors import InputError

    agent_id, _, agent_type = text.partition(":")
    if not agent_id or not agent_type:
        raise InputError(f"{text!r} does not name an agent", hint="Write ID:TYPE, for example tester-2:tester.")
    return Party(agent_id, agent_type)


def _write(
    file: str,
    written: Output,
    bases: dict[str, Context],
    *,
    parties: tuple[Party, Party],
    task: str,
    reply: str | None,
    held: bool,
) -> None:
    from apportion.compression.handoff import NOTHING, Capabilities, Handoff, write_handoff

    context = read_file(file)
    handoff = Handoff(*parties, task, context, datetime.now(UTC), handoff_id=str(uuid4()))
    receiver = NOTHING
    if held:
        receiver = Capabilities(deltas=True, holds=tuple(bases))
    elif reply is not None:
        receiver = Capabilities.of(_json(reply))
    message = write_handoff(handoff, receiver=receiver, bases=bases)
    write_output(written, json.dumps(message, ensure_ascii=False, indent=2) + "\n")
    if written.to_stdout:
        return
    if "delta" in message["context"]:
        size = len(json.dumps(message["context"]["delta"], ensure_ascii=False).encode())
        say(f"wrote {written.name}: a delta of {size:,} bytes for a context of {context.size:,}")
    else:
        reason = receiver.shared(bases)[1]
        why = "a delta would not be shorter" if reason is None else reason.value.replace("_", " ")
        say(f"wrote {written.name}: the whole context, {context.size:,} bytes ({why})")


def _read(file: str, written: Output, held: dict[str, Context]) -> None:
    from apportion.compression.diff.reading import join_context
    from apportion.compression.handoff import read_handoff
    from apportion.errors import DeltaError
    from apportion.planner.report.figures import plain

    received = read_handoff(_json(file), held=held)
    for message in received.degraded:
        typer.echo(f"warning: {plain(message)}", err=True)
    if received.context is None:
        reason = received.reason or ""
        raise DeltaError(f"the context of this message cannot be had: {reason.replace('_', ' ')}", reason=reason)
    write_bytes(written, join_context(received.context))
    if not written.to_stdout:
        sure = "compared with its hash" if received.exact else "not compared: the message names no hash"
        say(f"wrote {written.name}: {received.context.size:,} bytes, {sure}")


def _json(file: str) -> Any:
    from apportion.errors import InputError

    try:
        return json.loads(Path(file).read_bytes())
    except (ValueError, RecursionError):
        raise InputError("is no JSON", path=file, hint="Name a handoff message.") from None
