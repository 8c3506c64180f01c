"""The command `apportion validate`."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apportion.errors import InputError, MissingExtraError
from apportion.planner.doors.cli._common import WIDTH, say
from apportion.planner.doors.cli._compression import read_content
from apportion.planner.doors.cli._files import STDIO, check_outputs, output, write_output
from apportion.planner.doors.cli._json import JsonFileCommand
from apportion.planner.doors.cli._numbers import share

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from apportion.compression.similarity.gate import Coverage
    from apportion.compression.validation.check import Check

REJECTED = 1
"""Exit code when the compressed text may not stand for the original."""

MAX_SHOWN = 20
"""Entries of each list that are shown; the JSON has them all."""

SCHEMA = "apportion.validate/1"
"""Name and version of the JSON that is written."""

NOT_MEASURED = "not measured: --min-similarity asks for it"
"""What is said of the similarity where nobody asked for it: it takes seconds to load the model."""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    summary = "Check a compressed text against its original: what was lost, and what is new?"
    app.command("validate", cls=JsonFileCommand, help=_HELP, short_help=summary, no_args_is_help=True)(validate_command)


_HELP = """Check a compressed text against its original: what was lost, and what is new?

Compares facts (numbers, names, paths, URLs, dates, versions, quotations, error lines), constraints (must, never, only,
unless ...), and the two texts word for word. White space, line breaks, quotes, bullets, emphasis and thousands
separators may differ. What was left out counts as lost: handles are followed only by those who made them.

With --min-similarity and the extra semantic, meaning is compared as well: each chunk of the original, of about 200
tokens, with what stands in its place; one of which nothing is left counts 0, and the mean is weighted by length. A
changed number or negation hardly moves it: the checks above see those.

\b
Examples:
  apportion validate original.log short.log
  some-tool < original.md | apportion validate original.md -
  apportion validate original.md short.md --json - | jq .lost_passages

Exit codes: 0 accepted; 1 rejected; 2 a file or an option cannot be used.
"""


def validate_command(
    original: Annotated[
        str, typer.Argument(metavar="ORIGINAL", help="The original; - is standard input.", show_default=False)
    ],
    compressed: Annotated[
        str, typer.Argument(metavar="COMPRESSED", help="What became of it; - is standard input.", show_default=False)
    ],
    json_file: Annotated[
        str | None,
        typer.Option(
            "--json", metavar="FILE", help="Write what was found as JSON; - prints it instead of the usual result."
        ),
    ] = None,
    min_similarity: Annotated[
        float | None,
        typer.Option(
            parser=share("--min-similarity"),
            metavar="SHARE",
            help="Measure the similarity in meaning, in [0, 1], and reject less; needs the extra semantic.",
        ),
    ] = None,
) -> None:
    """Check a compressed text against its original."""
    from apportion.compression.validation.check import check

    target = None if json_file is None else output("--json", json_file)
    names = [original, compressed]
    if names.count(STDIO) > 1:
        raise InputError("standard input can be one of the texts, not both", hint="Give the other one as a file")
    check_outputs([] if target is None else [target], names, [Path(name) for name in names if name != STDIO])
    contents = [read_content(name) for name in names]
    coverage = None if min_similarity is None else _coverage(*contents)
    similarity = None if coverage is None else coverage.mean
    found = check(*contents, associations=True)
    reasons = list(found.reasons)
    if min_similarity is not None and similarity is not None and similarity < min_similarity:
        reasons.append(f"similarity {similarity:.3f} is below {min_similarity:g}")
    if target is None or not target.to_stdout:
        _show(found, coverage, reasons)
    if target is not None:
        write_output(target, json.dumps(_as_json(found, coverage, reasons), indent=2, ensure_ascii=False) + "\n")
        if not target.to_stdout:
            typer.echo(f"wrote {target.name}", err=True)
    if reasons:
        raise typer.Exit(REJECTED)


def _coverage(original: bytes, compressed: bytes) -> Coverage:
    """Return how much of the meaning is covered.

    Raises:
        MissingExtraError: There is no model to measure it.
        InputError: The model cannot be loaded, or the text is too long to be compared.
    """
    from apportion.compression.similarity.gate import Gate
    from apportion.embeddings import EXTRA, is_installed

    if not is_installed():
        raise MissingExtraError("--min-similarity", extra=EXTRA)
    return Gate().compare(original, compressed)


def _show(found: Check, coverage: Coverage | None, reasons: Sequence[str]) -> None:
    say("accepted" if not reasons else "rejected")
    for reason in reasons:
        _say_item(reason)
    say()
    say(f"facts visible         {found.visible_facts:,} of {found.facts:,} ({found.visible_share:.1%})")
    say(f"quantities and pairs  {found.visible_associations:,} of {found.associations:,}")
    say(f"constraints visible   {found.constraints - len(found.lost_constraints):,} of {found.constraints:,}")
    said = NOT_MEASURED if coverage is None else f"{coverage.mean:.3f} on average, {coverage.minimum:.3f} at least"
    say(f"similarity by chunk   {said}")
    for title, entries in _lists(found):
        if entries:
            say()
            say(f"{title} ({len(entries):,}):")
            for entry in entries[:MAX_SHOWN]:
                _say_item(entry)
            if len(entries) > MAX_SHOWN:
                say(f"  ... and {len(entries) - MAX_SHOWN:,} more")


def _lists(found: Check) -> Iterator[tuple[str, Sequence[str]]]:
    yield "Constraints lost", found.lost_constraints
    yield "Facts lost", found.lost
    yield "Facts that are new", found.new
    yield "Words lost", found.lost_passages
    yield "Words that are new", found.new_passages
    yield "In another order", found.moved_passages
    yield "Negations lost or new", found.negations


def _as_json(found: Check, coverage: Coverage | None, reasons: Sequence[str]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "accepted": not reasons,
        "reasons": list(reasons),
        "facts": found.facts,
        "visible_facts": found.visible_facts,
        "visible_share": found.visible_share,
        "associations": found.associations,
        "visible_associations": found.visible_associations,
        "constraints": found.constraints,
        "similarity": None if coverage is None else coverage.mean,
        "least_similarity": None if coverage is None else coverage.minimum,
        "similarity_reason": NOT_MEASURED if coverage is None else None,
        "lost": found.lost,
        "new": found.new,
        "lost_associations": found.lost_associations,
        "lost_constraints": found.lost_constraints,
        "lost_passages": found.lost_passages,
        "new_passages": found.new_passages,
        "moved_passages": found.moved_passages,
        "negations": found.negations,
    }


def _say_item(text: str) -> None:
    from apportion.planner.report.figures import plain

    shown = plain(" ".join(text.split()))
    say(textwrap.fill(shown, WIDTH, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False))
