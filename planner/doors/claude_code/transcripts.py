"""Reads what Claude Code writes of a conversation: its version, what the model used, what the user said.

Only files that end in `.jsonl` or `.meta.json` are read, and of each no more than a fixed number of bytes.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from apportion.records import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES = 64 * 2**20
"""Bytes of the largest transcript that is read."""

HEAD_BYTES = 2**16
"""Bytes of its beginning that are read for the version."""

Version = tuple[int, ...]


def parse_version(text: object) -> Version | None:
    """Return a version as numbers, or `None` where it is none.

    >>> parse_version("2.1.330"), parse_version("new")
    ((2, 1, 330), None)
    """
    parts = text.split(".") if isinstance(text, str) and len(text) <= 40 else []
    if len(parts) < 2 or not all(part.isascii() and part.isdigit() for part in parts):
        return None
    return tuple(int(part) for part in parts)


def version_of(transcript: object) -> Version | None:
    """Return the version of the client that writes a transcript, or `None` where it does not say."""
    for line in _lines(transcript, HEAD_BYTES):
        found = parse_version(line.get("version"))
        if found is not None:
            return found
    return None


class Spent(NamedTuple):
    """What the requests of a transcript used.

    Attributes:
        usage: All of them together.
        first_prompt_tokens: The prompt of the first one: less than that no agent of this kind can do.
    """

    usage: Usage
    first_prompt_tokens: int


def spent_by(transcript: object, *, last: object = None) -> Spent | None:
    """Return what all requests of a transcript used, or `None` where there is none.

    Several lines belong to one request, so requests are told apart by the id of the message; the last line counts.

    Args:
        transcript: The file. The client may write its last lines a little later than it tells that an agent has ended.
        last: What the client says of the last request, if it does; added where the file does not have it yet.
    """
    found: dict[str, dict[str, Any]] = {}
    for line in _lines(transcript, MAX_BYTES):
        message = line.get("message")
        if line.get("type") == "assistant" and isinstance(message, dict) and isinstance(message.get("usage"), dict):
            found[str(message.get("id"))] = message["usage"]
    usages = [canonical(usage) for usage in found.values()]
    if isinstance(last, dict) and (ended := canonical(last)).prompt_tokens is not None and ended not in usages[-1:]:
        usages.append(ended)
    if not usages:
        return None
    return Spent(sum(usages[1:], usages[0]), usages[0].prompt_tokens or 0)


def canonical(usage: dict[str, Any]) -> Usage:
    """Return the usage of a response in our columns; what is missing or no count is unknown."""
    return Usage(
        input_uncached=_count(usage.get("input_tokens")),
        cache_read=_count(usage.get("cache_read_input_tokens")),
        cache_write_5m=_count(usage.get("cache_creation_input_tokens")),
        output=_count(usage.get("output_tokens")),
    )


def tool_use_of(transcript: object) -> str | None:
    """Return the id of the call that started the sub-agent of a transcript, from the file beside it."""
    if not isinstance(transcript, str) or not transcript.endswith(".jsonl"):
        return None
    data = _read(Path(transcript.removesuffix(".jsonl") + ".meta.json"), HEAD_BYTES)
    try:
        found = json.loads(data or b"{}").get("toolUseId")
    except (ValueError, AttributeError, RecursionError):
        return None
    return found if isinstance(found, str) else None


def agent_transcript(transcript: object, agent_id: object) -> str | None:
    """Return where the transcript of a sub-agent is, from that of its session."""
    if not (isinstance(transcript, str) and isinstance(agent_id, str) and agent_id.isalnum()):
        return None
    return str(Path(transcript.removesuffix(".jsonl")) / "subagents" / f"agent-{agent_id}.jsonl")


def user_texts(transcript: object) -> list[str]:
    """Return what the user wrote, in order: no results of tools, no summaries, nothing of the client itself."""
    found = []
    for line in _lines(transcript, MAX_BYTES):
        hidden = line.get("isMeta") or line.get("isCompactSummary") or line.get("isSidechain")
        message = line.get("message")
        if line.get("type") == "user" and not hidden and isinstance(message, dict):
            text = message.get("content")
            if isinstance(text, list):
                blocks = [block for block in text if isinstance(block, dict) and block.get("type") == "text"]
                text = "\n".join(str(block.get("text", "")) for block in blocks)
            if isinstance(text, str) and text and not text.startswith("<"):
                found.append(text)
    return found


def _lines(path: object, most: int) -> Iterator[dict[str, Any]]:
    if not isinstance(path, str) or not path.endswith(".jsonl"):
        return
    data = _read(Path(path), most)
    for line in (data or b"").splitlines():
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            continue  # cut off, or not yet written to its end
        if isinstance(found, dict):
            yield found


def _read(path: Path, most: int) -> bytes | None:
    """Return the beginning of a regular file, or `None`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))
    except (OSError, ValueError):
        return None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        return file.read(most)


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 2**53 else None
