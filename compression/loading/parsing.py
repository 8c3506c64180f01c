"""What a file holds: an agent, a skill, a list of tools, or an index of agents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apportion.compression.loading.markdown import front_matter
from apportion.compression.loading.tool_lists import read_tools
from apportion.compression.loading.types import MAX_DESCRIPTION, MAX_NAME, Entry, EntryKind, Found
from apportion.errors import InputError
from apportion.records import content_hash
from apportion.tokens import count_tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SKILL_FILE = "SKILL.md"
INDEX_FILE = "index.json"


def entries_of(path: Path, content: bytes, *, extra: Mapping[str, Any] | None = None) -> Found:
    """Return the entries of a file by its name and content; nothing where it is neither Markdown nor JSON.

    Args:
        path: The file.
        content: All of it.
        extra: What an index says of an agent beside its file: `id` and `keywords`.

    Raises:
        InputError: It is damaged, and the message says how.
    """
    if path.suffix.lower() == ".md":
        return Found((_document(path, content, extra or {}),))
    if path.suffix.lower() == ".json":
        return _tools(path, content)
    return Found()


def index_of(path: Path, content: bytes) -> dict[Path, dict[str, Any]] | None:
    """Return the agents that an index names, by where their files may lie; `None` where it is no index of agents.

    A path of an index is relative to its own folder, or to a folder above it: then the file's name alone counts.

    Raises:
        InputError: It is no JSON.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        raise InputError("is no JSON", path=path) from None
    agents = value.get("agents") if isinstance(value, dict) else None
    if not isinstance(agents, list):
        return None
    return dict(_indexed(path.parent, agents))


def _indexed(folder: Path, agents: list[Any]) -> Iterator[tuple[Path, dict[str, Any]]]:
    for agent in agents:
        named = agent.get("file_path") if isinstance(agent, dict) else None
        if not isinstance(named, str) or not named:
            continue
        beside = folder / named
        yield (beside if beside.exists() else folder / Path(named).name), agent


def _document(path: Path, content: bytes, extra: Mapping[str, Any]) -> Entry:
    """Return the entry of an agent or skill."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"is no UTF-8 (byte {error.start:,})", path=path) from None
    kind = EntryKind.SKILL if path.name == SKILL_FILE else EntryKind.AGENT
    values = front_matter(content)
    if "name" not in values and "description" not in values:
        raise InputError("has no front matter with a name", path=path, hint="Begin it with ---, name: and description:")
    name = values.get("name") or (path.parent.name if kind is EntryKind.SKILL else path.stem)
    words = [str(extra[key]) for key in ("id", "display_name", "category") if isinstance(extra.get(key), str)]
    words += [word for word in extra.get("keywords") or () if isinstance(word, str)][:50]
    words += [word.strip() for word in (values.get("tools") or values.get("allowed-tools") or "").split(",")][:50]
    return Entry(
        kind=kind,
        name=name[:MAX_NAME],
        description=values.get("description", "")[:MAX_DESCRIPTION],
        digest=content_hash(content),
        tokens=count_tokens(text),
        size=len(content),
        path=path,
        words=tuple(word[:MAX_NAME] for word in words if word),
    )


def _tools(path: Path, content: bytes) -> Found:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"is no UTF-8 (byte {error.start:,})", path=path) from None
    try:
        tools = read_tools(text)
    except InputError as error:
        raise InputError(error.message, path=path) from None
    entries: dict[str, Entry] = {}
    reasons: list[str] = []
    characters = size = 0
    for number, tool in enumerate(tools or (), start=1):
        if not tool.name or tool.name in entries:
            reasons.append(f"tool {number} has no name" if not tool.name else f"tool {tool.name!r} stands there twice")
            continue
        size += len(text[characters : tool.start].encode())
        own = text[tool.start : tool.end].encode()
        entries[tool.name] = Entry(
            kind=EntryKind.TOOL,
            name=tool.name[:MAX_NAME],
            description=tool.description[:MAX_DESCRIPTION],
            digest=content_hash(own),
            tokens=count_tokens(text[tool.start : tool.end]),
            size=len(own),
            path=path,
            place=(size, size + len(own)),
        )
        characters, size = tool.end, size + len(own)
    return Found(tuple(entries.values()), tuple(reasons))
