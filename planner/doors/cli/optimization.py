"""The command `apportion optimization validate`."""

from __future__ import annotations

import textwrap
import time
from contextlib import contextmanager
from pathlib import Path  # noqa: TC003  (typer reads the annotations)
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apportion.planner.doors._contents import opened_originals
from apportion.planner.doors.cli._common import WIDTH, print_json, say
from apportion.planner.doors.cli._tables import table
from apportion.planner.doors.cli.telemetry import JsonOption, StoreOption, telemetry_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from apportion.compression.store import HandleStore
    from apportion.planner.report.schema import WorkflowRow
    from apportion.planner.revalidation import Piece, Revalidation
    from apportion.telemetry.stored import StoredWorkflow

WRONG = 1
"""Exit code when something was lost or made up, or cannot be had back."""

SCHEMA = "apportion.optimization/1"
"""Name and version of the JSON that is written."""

MAX_SHOWN = 20
"""Pieces that are shown one by one; JSON has all of them."""

commands = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    short_help="Look again at what sessions were given.",
    help="""Look again at what sessions were given.

\b
Example:
  apportion optimization validate --session-id "release notes"
""",
)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(commands, name="optimization")


@commands.command(short_help="Validate again what a session or workflow was given: facts, meaning, bill.")
def validate(
    *,
    session_id: Annotated[
        str,
        typer.Option("--session-id", metavar="ID", help="Name of the session or workflow, or its beginning."),
    ],
    store: StoreOption = None,
    originals: Annotated[
        Path | None,
        typer.Option(
            "--originals", metavar="FILE", help="Its store of originals; default: beside the telemetry store."
        ),
    ] = None,
    similarity: Annotated[
        bool | None,
        typer.Option(
            "--similarity/--no-similarity",
            help="Compare meaning too; default: where the extra semantic is installed.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Validate again what a session or workflow was given: facts, meaning, and the bill.

    Of a session, each piece that was sent otherwise than whole is read from the store of originals and compared with
    what stood in its place; where that was not kept, the original must at least be there, byte for byte. Of a workflow
    that was imported with its contents, all is planned again by a replay.

    Exit codes: 0 nothing was lost; 1 something was lost or made up, or cannot be had back; 2 there is no such session.

    \b
    Examples:
      apportion optimization validate --session-id "release notes"
      apportion optimization validate --session-id 7f3a --json
    """  # noqa: D301  (\b keeps the lines of the examples apart)
    settings = telemetry_settings(store)
    database = settings.database
    name, workflow = _found(database, session_id)
    if workflow is not None:
        _validate_workflow(workflow, as_json=as_json)
        return
    found = _revalidated(database, originals, name, _comparer(wanted=similarity))
    if as_json:
        print_json(_session_json(name, found))
    else:
        _show_session(name, found)
    if not found.sound:
        raise typer.Exit(WRONG)


def _found(database: Path, beginning: str) -> tuple[str, StoredWorkflow | None]:
    """Return the name of the session or workflow that is meant, and the workflow where it is one.

    Raises:
        InputError: There is none, or several names begin so.
    """
    from apportion.errors import InputError
    from apportion.telemetry.sessions import session_names
    from apportion.telemetry.store import TelemetryStore

    if not database.exists():
        raise InputError("the telemetry store does not exist yet", path=database, hint="Name one: --store FILE")
    with TelemetryStore(database) as store:
        sessions = session_names(database)
        imported = [summary.id for summary in store.workflows()]
        names = list(dict.fromkeys([*sessions, *imported]))
        known = [name for name in names if name == beginning] or [name for name in names if name.startswith(beginning)]
        if not known:
            hint = f"Latest: {', '.join(names[-3:])}" if names else "Sessions with telemetry are recorded there"
            raise InputError(f"there is no session or workflow '{_plain(beginning)}'", path=database, hint=_plain(hint))
        if len(known) > 1:
            hint = f"For example {_plain(known[0])} or {_plain(known[1])}"
            raise InputError(f"{len(known):,} names begin with '{_plain(beginning)}'", path=database, hint=hint)
        return known[0], None if known[0] in sessions else store.load(known[0])


# Sessions.


def _comparer(*, wanted: bool | None) -> Callable[[bytes, bytes], float] | None:
    """Return what measures similarity, where it is wanted or installed.

    Raises:
        MissingExtraError: It is wanted and not installed.
    """
    from apportion.embeddings import EXTRA, is_installed
    from apportion.errors import MissingExtraError

    if wanted is False:
        return None
    if not is_installed():
        if wanted:
            raise MissingExtraError("--similarity", extra=EXTRA)
        return None
    from apportion.compression.similarity.gate import Gate

    gate = Gate()
    return lambda original, shown: gate.compare(original, shown).mean


def _revalidated(
    database: Path, originals: Path | None, name: str, compare: Callable[[bytes, bytes], float] | None
) -> Revalidation:
    from apportion.planner.revalidation import revalidate
    from apportion.telemetry._database import Database
    from apportion.telemetry.sessions import read_events

    path = database.with_name(f"{database.name}.originals") if originals is None else originals
    opened = Database(database)
    try:
        with _originals(path, named=originals is not None) as kept:
            return revalidate(read_events(opened, workflow=name), kept, compare=compare)
    finally:
        opened.close()


@contextmanager
def _originals(path: Path, *, named: bool) -> Iterator[HandleStore | None]:
    """Open the store of originals; only one that was named must be there."""
    if not (named or path.exists()):
        yield None
        return
    with opened_originals(path, create=False) as store:
        yield store


def _session_json(name: str, found: Revalidation) -> dict[str, Any]:
    summary = found.summary
    (totals,) = summary.workflows or (None,)
    bill = None
    if totals is not None:
        bill = {
            "calls": totals.steps,
            "input_tokens": totals.input_tokens,
            "saved_tokens": totals.saved_tokens,
            "saved_share": totals.saved_share,
            "cost_usd": totals.cost_usd,
            "saved_usd": totals.saved_usd,
        }
    return {
        "schema": SCHEMA,
        "session": name,
        "recorded": "live",
        "sound": found.sound,
        "states": _states(found.pieces),
        "pieces": [{**piece._asdict(), "state": piece.state.value} for piece in found.pieces],
        "bill": bill,
        "decisions": summary.decisions,
        "losses": summary.losses._asdict(),
    }


def _states(pieces: Sequence[Piece]) -> dict[str, int]:
    from collections import Counter

    return dict(Counter(piece.state.value for piece in pieces))


def _show_session(name: str, found: Revalidation) -> None:
    from apportion.planner.report.figures import UNKNOWN, breakable, count, percent
    from apportion.planner.revalidation import BAD

    say(f"session: {_plain(name)}")
    totals = found.summary.workflows[0] if found.summary.workflows else None
    if totals is not None:
        share = percent(totals.saved_share)
        sent = f"{totals.input_tokens:,} prompt tokens sent, {totals.saved_tokens:,} not sent ({share})"
        say(breakable(f"{count(totals.steps, 'call')}: {sent}"))
        costs = (UNKNOWN if usd is None else f"${usd:,.4f}" for usd in (totals.cost_usd, totals.saved_usd))
        say("bill: {}, saved: {}".format(*costs))
    if found.summary.losses.damaged:
        say(f"{count(found.summary.losses.damaged, 'event')} damaged: what they told is missing here")
    if not found.pieces:
        say("every piece was sent whole: nothing to validate")
        return
    states = ", ".join(f"{number:,} {state}" for state, number in _states(found.pieces).items())
    say(f"pieces sent otherwise than whole: {len(found.pieces):,} ({states})\n")
    ordered = sorted(found.pieces, key=lambda piece: piece.state not in BAD)
    rows = [
        [
            f"{piece.step if piece.step is not None else UNKNOWN} {piece.run_id or ''}".strip(),
            piece.action,
            piece.state.value,
            _share(piece.visible_facts, piece.facts),
            _share(piece.recoverable_facts, piece.facts),
            UNKNOWN if piece.similarity is None else f"{piece.similarity:.3f}",
        ]
        for piece in ordered[:MAX_SHOWN]
    ]
    for line in table(["Step", "Action", "State", "Facts\nshown", "or had\nback", "Similarity"], rows):
        say(line)
    if len(ordered) > MAX_SHOWN:
        say(f"and {len(ordered) - MAX_SHOWN:,} more; --json lists them")
    for piece in ordered:
        if piece.state in BAD:
            text = _plain(f"step {piece.step}: {'; '.join(piece.reasons)}")
            say(textwrap.fill(text, WIDTH, initial_indent="- ", subsequent_indent="  "))


def _share(part: int | None, whole: int | None) -> str:
    from apportion.planner.report.figures import UNKNOWN

    return UNKNOWN if part is None or whole is None else f"{part:,} of {whole:,}"


# Workflows that were imported.


def _validate_workflow(workflow: StoredWorkflow, *, as_json: bool) -> None:
    from apportion.errors import InputError

    if not workflow.captured:
        hint = "Import its log again with --capture-content, or replay the log itself: apportion replay"
        raise InputError(f"workflow {_plain(workflow.summary.id)} was imported without its contents", hint=hint)
    row = _replayed(workflow)
    if as_json:
        print_json(
            {"schema": SCHEMA, "session": workflow.summary.id, "recorded": "import", **row.model_dump(mode="json")}
        )
        return
    from apportion.planner.report.figures import UNKNOWN, breakable, percent, tokens, usd

    say(f"workflow: {_plain(workflow.summary.id)} (imported; planned again by a replay)")
    ledgers = row.ledgers
    rows = [
        [title, write(one.baseline), write(one.planned), percent(one.saved_share)]
        for title, one, write in (
            ("Visible tokens", ledgers.visible_tokens, tokens),
            ("Real prompt tokens", ledgers.real_prompt_tokens, tokens),
            ("Bill, USD", ledgers.bill_usd, usd),
        )
    ]
    for line in table(["", "As it was", "Planned", "Saved"], rows):
        say(line)
    facts = row.facts
    seen = ("visible", facts.visible_share), ("with handles", facts.recoverable_share)
    shares = ", ".join(f"{UNKNOWN if share is None else percent(share)} {title}" for title, share in seen)
    say(breakable(f"facts: {shares}"))
    for reason in row.degraded:
        say(_plain(f"degraded: {reason}"))


def _replayed(workflow: StoredWorkflow) -> WorkflowRow:
    from apportion.planner.planner import PlanOptions
    from apportion.planner.replay.aggregate import RunFacts, build_report
    from apportion.planner.replay.workflow import replay_workflow
    from apportion.settings import load_settings
    from apportion.telemetry.reading import SkipLog

    optimization = load_settings().settings.token_optimization
    options = PlanOptions(target_reduction=optimization.target_reduction, enabled=optimization.enabled)
    began = time.perf_counter()
    result = replay_workflow(workflow.to_log(), options)
    facts = RunFacts(complete=True, seconds=time.perf_counter() - began, peak_memory_mb=None, settings={})
    (row,) = build_report([result], options, SkipLog(), facts).per_workflow
    return row


def _plain(text: str) -> str:
    from apportion.planner.report.figures import plain

    return plain(text)
