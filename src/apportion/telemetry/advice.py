"""What to do when nothing could be read: the reasons that occur, and the next step for each."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from apportion.telemetry._sources import Skip, SkipLog

EMPTY_PATH = "an empty path was given"
NO_SUCH_FILE = "no such file or directory"
NO_MATCH = "the pattern matches nothing"
EMPTY_FOLDER = "the directory holds no files"
EMPTY_FILE = "empty file"
BINARY = "binary file"
UNRECOGNISED = "no importer recognises the content"
HIDDEN = "hidden, so it is left out; name it to read it"
NO_CALLS = "no model call"
"""Part of every reason that says: this was read, and no model was called in it."""

STDIN_LABEL = "<stdin>"
"""How standard input is called in messages."""

_PLACES = {"~/.claude/projects": "Claude Code", "~/.codex/sessions": "Codex", "~/.pi/agent/sessions": "pi"}
"""Where logs usually are, and whose."""

_USUAL_PLACES = ", ".join(f"{place} ({tool})" for place, tool in list(_PLACES.items())[:2])


def advice(skipped: SkipLog, titles: Iterable[str]) -> str | None:
    """Say what to do next after nothing was found; `None` where the reasons speak for themselves.

    Args:
        skipped: Why nothing was found.
        titles: The tools whose logs can be read; named only where the content of a file was the reason.
    """
    if not skipped.messages:
        return "Give at least one path"
    reasons = {message.reason for message in skipped.messages}
    if reasons <= {NO_SUCH_FILE, EMPTY_FOLDER}:
        return _where_logs_are(skipped.messages)
    if reasons & {UNRECOGNISED, BINARY}:
        return f"Supported logs: {', '.join(titles)}"
    if any(message.path == STDIN_LABEL and message.reason == EMPTY_FILE for message in skipped.messages):
        return "Nothing came through standard input: pipe a log into it, or give a path"
    step = next((step for reason, step in _STEPS.items() if reason in reasons), None)
    read = skipped.unused or any(NO_CALLS in reason for reason in reasons)
    return step or (_WITHOUT_CALLS if read else None)


def _where_logs_are(messages: Sequence[Skip]) -> str:
    """Say where to look for logs, without a place that was looked at already."""
    looked_at = {os.path.realpath(os.path.expanduser(one.path)) for one in messages}  # noqa: PTH111  (there may be no home)
    others = [
        f"{place} ({tool})"
        for place, tool in _PLACES.items()
        if os.path.realpath(os.path.expanduser(place)) not in looked_at  # noqa: PTH111
    ]
    places = ", ".join(others[:2])
    if any(one.reason == NO_SUCH_FILE for one in messages):
        return f"Check the path. Logs are usually at {places}" if places else "Check the path"
    return f"Give a directory that holds logs, usually {places}" if places else "Give a directory that holds logs"


_STEPS = {
    EMPTY_PATH: "Is a variable of the shell empty?",
    NO_SUCH_FILE: f"Check the path. Logs are usually at {_USUAL_PLACES}",
    NO_MATCH: "Check the pattern, and quote it so that the shell leaves it alone: 'logs/**/*.jsonl'",
    EMPTY_FOLDER: f"Give a directory that holds logs, usually {_USUAL_PLACES}",
    HIDDEN: "Hidden files and directories are read only where they are named",
    EMPTY_FILE: "The file holds nothing yet: give a log with at least one model call",
}

_WITHOUT_CALLS = (
    "The files were read, but no model was called in them: give logs that record prompts and answers of models, "
    f"usually {_USUAL_PLACES}"
)
