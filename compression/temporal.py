"""What has become stale in a conversation: results that later ones replace, repeat or leave behind.

    for stale in find_stale(pieces, old_after=10):
        stale.position, stale.reason, stale.breaks_at

Only results are ever replaced. The call that asked for one stays as the model wrote it, so that call and result remain
a pair; `Stale.call` says where it is. To replace a result that was sent already rewrites what the provider's cache
holds from `breaks_at` on: whether that pays is for the planner to decide, which knows the prices.

- *duplicate*: the same call brought the same result before; the later one can refer to it.
- *superseded*: a later call read or listed the same target, or more of it.
- *expired*: a later plan or list of things to do replaces this one.
- *old*: so many completions ago that it is likely done with.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from apportion.compression.actions import Rendered, render, result_number
from apportion.compression.summary import summarise
from apportion.errors import InputError
from apportion.records import Action, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from apportion.compression.store import HandleStore

MAX_INPUT = 100_000
"""Characters of the longest tool input whose fields are read."""

READING = frozenset({"read", "view", "cat", "open", "read_file", "view_file", "open_file", "notebookread"})
"""Tools, in small letters, that show a file or a part of it."""

LISTING = frozenset({"ls", "list", "glob", "list_dir", "list_directory", "list_files", "find_files", "tree"})
"""Tools that show what is there: a later listing of the same target replaces an earlier one."""

PLANNING = frozenset({"todowrite", "todoread", "update_plan", "write_todos", "todo_write", "todo_read", "plan"})
"""Tools whose result shows a plan as a whole."""

_PATHS = ("file_path", "filePath", "path", "notebook_path", "filename", "file")
_RESULTS = frozenset({Kind.TOOL_RESULT, Kind.HANDOFF_RESULT})
_CALLS = frozenset({Kind.TOOL_CALL, Kind.HANDOFF})


class Reason(StrEnum):
    """Why a result is stale; the first that holds, in this order."""

    DUPLICATE = "duplicate"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"
    OLD = "old"


@dataclass(frozen=True, slots=True)
class Piece:
    """One message of a conversation, as it is sent.

    Attributes:
        kind: What it is.
        content: What stands in it; for a call, its input.
        name: Tool of a call or result, or `None`.
        link: What ties a call to its result, or `None`: the nearest open call of that name before the result then.
        pinned: Whether it must stay.
    """

    kind: Kind
    content: bytes
    name: str | None = None
    link: str | None = None
    pinned: bool = False


class Stale(NamedTuple):
    """A result that can be replaced by a line.

    Attributes:
        position: Which piece, counted from 0.
        call: The piece that asked for it, or `None` where that is not known. It stays.
        reason: Why.
        by: The piece that replaces or repeats it; `None` for an old one.
    """

    position: int
    call: int | None
    reason: Reason
    by: int | None

    @property
    def breaks_at(self) -> int:
        """First piece that the provider's cache has to read anew if this is replaced after it was sent."""
        return self.position

    @property
    def action(self) -> Action:
        """What is to be done: a duplicate refers to the copy before it, anything else goes behind its handle."""
        return Action.REFERENCE if self.reason is Reason.DUPLICATE else Action.MASK


class Replacement(NamedTuple):
    """What stands for a stale result.

    Attributes:
        stale: Which, and why.
        rendered: What is sent instead; the result itself where a line would not be shorter.
        saved_tokens: Tokens by which the prompt gets shorter.
        summary: What the line says about the result; empty for a reference.
        summary_tokens: Tokens of the line that the summary costs.
        suffix_tokens: Tokens behind the result: what a break of the cache rewrites, if all of them are cached.
    """

    stale: Stale
    rendered: Rendered
    saved_tokens: int
    summary: str
    summary_tokens: int
    suffix_tokens: int


def find_stale(
    pieces: Sequence[Piece], *, old_after: int | None = None, relied_on: Collection[int] = ()
) -> list[Stale]:
    """Return the results that can be replaced, in their order; each for one reason.

    Args:
        pieces: The conversation.
        old_after: Completions after which a result is old; `None`: never.
        relied_on: Pieces that must stay because later ones refer to what stands there, or were cut because of it.

    Raises:
        InputError: `old_after` is below 1.
    """
    if old_after is not None and old_after < 1:
        raise InputError(f"old after {old_after} completions", hint="Name 1 or more, or None.")
    exchanges = list(_exchanges(pieces))
    found: dict[int, Stale] = {}
    for stale in (*_duplicates(exchanges), *_superseded(exchanges), *_expired(exchanges)):
        found.setdefault(stale.position, stale)
    if old_after is not None:
        later = _completions_after(pieces)
        for each in exchanges:
            if later[each.position] >= old_after:
                found.setdefault(each.position, Stale(each.position, each.call, Reason.OLD, None))
    referred = {stale.by for stale in found.values() if stale.reason is Reason.DUPLICATE}
    kept = referred | set(relied_on) | {number for number, piece in enumerate(pieces) if piece.pinned}
    return [found[position] for position in sorted(found) if position not in kept]


def replace_stale(
    pieces: Sequence[Piece],
    stale: Iterable[Stale],
    *,
    store: HandleStore,
    count: Callable[[bytes], int],
    summaries: bool = True,
    as_file: bool = False,
) -> list[Replacement]:
    """Return what stands for stale results; the conversation itself is left as it is.

    Args:
        pieces: The conversation.
        stale: What `find_stale` found, or those of it that a plan chose.
        store: Keeps the originals.
        count: Counts tokens.
        summaries: Whether each line says what the result held.
        as_file: Whether the receiver reads files, so that a line can name one.

    Raises:
        StoreError: The store is full.
    """
    sizes = [count(piece.content) for piece in pieces]
    made: list[Replacement] = []
    for each in stale:
        piece = pieces[each.position]
        call = pieces[each.call] if each.call is not None else None
        masked = each.action is Action.MASK
        path = _target(call).path if call is not None else None
        summary = summarise(piece.content, name=piece.name, path=path) if masked and summaries else ""
        rendered = render(
            piece.content,
            each.action,
            store=store,
            tokens=sizes[each.position],
            count=count,
            name=piece.name,
            number=None if each.by is None else result_number((one.kind, one.link) for one in pieces[: each.by + 1]),
            as_file=as_file,
            summary=summary,
        )
        replaced = rendered.action is not Action.KEEP
        saved = sizes[each.position] - count(rendered.content) if replaced else 0
        summary = summary if replaced else ""
        made.append(
            Replacement(each, rendered, saved, summary, count(summary.encode()), sum(sizes[each.position + 1 :]))
        )
    return made


class _Target(NamedTuple):
    """What a call is about: the same tool, the same input; and for a file, which lines of it."""

    tool: str
    key: str
    path: str | None = None
    first: float = 0
    last: float = float("inf")

    def covers(self, other: _Target) -> bool:
        """Say whether this shows all that another showed."""
        same = self.tool == other.tool and self.path == other.path
        return same and self.first <= other.first and other.last <= self.last


class _Exchange(NamedTuple):
    """A result, and the call that asked for it."""

    position: int
    call: int | None
    content: bytes
    target: _Target | None


def _exchanges(pieces: Sequence[Piece]) -> Iterable[_Exchange]:
    by_link: dict[str, int] = {}
    unlinked: dict[str | None, list[int]] = {}
    for position, piece in enumerate(pieces):
        if piece.kind in _CALLS:
            if piece.link is not None:
                by_link[piece.link] = position
            else:
                unlinked.setdefault(piece.name, []).append(position)
        elif piece.kind in _RESULTS:
            waiting = unlinked.get(piece.name)
            call = by_link.get(piece.link) if piece.link is not None else waiting.pop(0) if waiting else None
            yield _Exchange(position, call, piece.content, None if call is None else _target(pieces[call]))


def _target(call: Piece) -> _Target:
    tool = (call.name or "").lower()
    text = call.content.decode("utf-8", "replace").strip()
    fields = _fields(text)
    key = json.dumps(fields, sort_keys=True) if fields is not None else text
    if fields is None or tool not in READING:
        return _Target(tool, key)
    path = next((found for field in _PATHS if isinstance(found := fields.get(field), str) and found), None)
    first = _number(fields.get("offset"), 0)
    size = _number(fields.get("limit"), float("inf"))
    return _Target(tool, key, path, first, first + size)


def _fields(text: str) -> dict[str, Any] | None:
    if len(text) > MAX_INPUT or not text.startswith("{"):
        return None
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def _number(value: Any, default: float) -> float:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else default


def _duplicates(exchanges: Sequence[_Exchange]) -> Iterable[Stale]:
    first: dict[tuple[str, str, bytes], int] = {}
    for each in exchanges:
        if each.target is not None:
            earlier = first.setdefault((each.target.tool, each.target.key, each.content), each.position)
            if earlier != each.position:
                yield Stale(each.position, each.call, Reason.DUPLICATE, earlier)


def _superseded(exchanges: Sequence[_Exchange]) -> Iterable[Stale]:
    """Yield reads and listings of which a later one shows all, with another content."""
    later: dict[tuple[str, str | None], list[_Exchange]] = {}
    for each in reversed(exchanges):
        target = each.target
        if target is None or target.tool not in READING | LISTING:
            continue
        about = (target.tool, target.path or target.key)
        for other in later.get(about, ()):
            shows = other.target is not None and (other.target.key == target.key or other.target.covers(target))
            if shows and other.content != each.content:
                yield Stale(each.position, each.call, Reason.SUPERSEDED, other.position)
                break
        later.setdefault(about, []).append(each)


def _expired(exchanges: Sequence[_Exchange]) -> Iterable[Stale]:
    newest: int | None = None
    for each in reversed(exchanges):
        if each.target is not None and each.target.tool in PLANNING:
            if newest is not None:
                yield Stale(each.position, each.call, Reason.EXPIRED, newest)
            else:
                newest = each.position


def _completions_after(pieces: Sequence[Piece]) -> list[int]:
    """Return how many times a model has written since each piece; pieces that it wrote in a row count once."""
    counts = [0] * len(pieces)
    completions, writes = 0, False
    for position in range(len(pieces) - 1, -1, -1):
        counts[position] = completions
        written = pieces[position].kind.written_by_model
        completions += written and not writes
        writes = written
    return counts
