"""The prompt of one agent run as the plan sends it: item by item, kept up to date between calls."""

from __future__ import annotations

import copy
import json
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from apportion.compression.temporal import LISTING, PLANNING
from apportion.records import Action, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import ArrayLike, NDArray

REPLACEABLE_KINDS = frozenset({Kind.TOOL_RESULT, Kind.HANDOFF_RESULT})
"""What may be shortened, masked or referred to: results of tools and of sub-agents. System text, tasks, constraints and
the model's own words always stay."""

FOLDABLE_KINDS = frozenset({Kind.TOOL_CALL, Kind.HANDOFF})
"""Of what the long texts may be left out: inputs of tools and sub-agents. The calls stay, with their short values."""

MIN_FOLDED_TOKENS = 150
"""Smaller inputs are never folded."""

MIN_REPLACED_TOKENS = 60
"""Smaller results are never replaced: the stub would hardly be shorter."""

STUB_TOKENS = 24
"""Tokens that a stub is expected to have before it is written."""

REFERENCE_TOKENS = 14
"""The same for a reference."""

_ACTIONS = (Action.KEEP, Action.REFERENCE, Action.MASK, Action.STRUCTURE, Action.SELECT)
_KEEP, _REFERENCE, _MASK, _STRUCTURE, _SELECT = range(5)

_COLUMNS: dict[str, type[np.generic]] = {
    "piece": np.int64,
    "logged": np.int64,
    "visible": np.int64,
    "tokens": np.float64,
    "full_tokens": np.float64,
    "born": np.int64,
    "last_use": np.int64,
    "uses": np.int64,
    "need": np.float64,
    "superseded": np.bool_,
    "maskable": np.bool_,
    "form": np.int8,
    "copy": np.int64,
    "structured": np.float64,
    "selected": np.float64,
    "selected_need": np.float64,
    "referred": np.float64,
    "owed": np.float64,
    "viewed": np.int64,
    "stub": np.float64,
}


class DroppedItem(NamedTuple):
    """An item that has left the prompt: its content, its visible tokens as sent, and its form."""

    piece: int
    visible: int
    action: Action


class PlannedPrompt:
    """The items of one agent run's prompt, in order, as columns of equal length.

    Columns:
        piece: Which content the item is (the caller's numbering).
        logged: Position in the prompt as logged, or -1 for an item that was expanded again at the end.
        visible: Tokens of its text as sent.
        tokens: The same in the provider's tokens.
        full_tokens: Provider tokens of the original.
        born: Number of the run's call that sent it first.
        last_use: Number of the run's call that sent it first or quoted it last.
        uses: How many calls quoted it so far.
        need: Probability, right after it was first sent, that it is needed again once it is gone.
        superseded: Whether a later call read or changed the same file.
        maskable: Whether it may be masked.
        form: What is sent: the original, a reference, a stub, or a shorter form of the same content or of parts.
        copy: An earlier row whose original has the same bytes, or -1.
        structured: Provider tokens of the shortest lossless form, the original included.
        selected: The same of the form that leaves parts out behind a handle; not less where there is none.
        selected_need: Probability that what that form leaves out is needed.
        referred: Provider tokens of the form that refers to earlier rows; not less than the others where there is none.
        owed: Tokens by which later rows grow once this one no longer stands literally: they refer to it.
        viewed: Number of the run's call that sent it first, or that sent a reference to it last.
        stub: Provider tokens that are expected to stay of it once it is masked.
    """

    def __init__(self) -> None:
        self._size = 0
        self._offers: dict[int, Mapping[int, float]] = {}
        self._relies: dict[int, Mapping[int, float]] = {}
        self._data: dict[str, NDArray[Any]] = {name: np.zeros(64, dtype=kind) for name, kind in _COLUMNS.items()}
        self._of_path: dict[str, int] = {}
        self._subjects: dict[int, str] = {}
        self.changed_from = 0
        """First item that differs from what was sent last; equal to the length then if none does."""

    def __len__(self) -> int:
        return self._size

    def column(self, name: str) -> NDArray[Any]:
        """Return a column as a view of shape (n,)."""
        return self._data[name][: self._size]

    def value(self, name: str, row: int) -> float:
        """Return what a column holds at a row."""
        value: float = self._data[name].item(row)
        return value

    def append(
        self,
        *,
        piece: int,
        logged: int,
        visible: int,
        tokens: float,
        born: int,
        need: float,
        maskable: bool,
        copy: int = -1,
        structured: float | None = None,
        selected: float | None = None,
        selected_need: float = 0.0,
        referred: float | None = None,
        owed: Mapping[int, float] | None = None,
        stub: float = STUB_TOKENS,
    ) -> int:
        """Add an item at the end, whole, and return its position.

        The arguments are its columns, and `owed`: by earlier row, the tokens by which its form with references grows
        once that row no longer stands literally.
        """
        if self._size == len(self._data["piece"]):
            for name, column in self._data.items():
                self._data[name] = np.concatenate((column, np.zeros_like(column)))
        row = self._size
        self._size += 1
        shorter = tokens if structured is None else structured
        forms = (shorter, shorter if selected is None else selected, selected_need)
        referring = (shorter if referred is None else referred, 0.0, born, stub)
        values = (
            piece,
            logged,
            visible,
            tokens,
            tokens,
            born,
            born,
            0,
            need,
            False,
            maskable,
            _KEEP,
            copy,
            *forms,
            *referring,
        )
        for column, value in zip(self._data.values(), values, strict=True):
            column[row] = value
        if owed:
            self._offers[row] = owed
        return row

    def replace(self, row: int, action: Action, *, visible: int, tokens: float) -> None:
        """Send another form of an item from now on: a stub, or nothing; what it referred to is free of it."""
        self.free(row)
        self._data["visible"][row] = visible
        self._data["tokens"][row] = tokens
        self._data["form"][row] = _ACTIONS.index(action)
        self._data["maskable"][row] = False
        self.changed_from = min(self.changed_from, row)

    def shorten(self, row: int, action: Action, *, visible: int, tokens: float) -> None:
        """Send a shorter form of an item from its first call on; it may be masked later."""
        self._data["visible"][row] = visible
        self._data["tokens"][row] = tokens
        self._data["form"][row] = _ACTIONS.index(action)
        self.changed_from = min(self.changed_from, row)

    def refer(self, row: int, *, visible: int, tokens: float) -> None:
        """Send a new item as references to earlier rows, which are thereby used again."""
        self.free(row)
        self.shorten(row, Action.REFERENCE, visible=visible, tokens=tokens)
        self._relies[row] = self.owed_by(row)
        for source, grows in self._relies[row].items():
            self._data["owed"][source] += grows
            self._data["viewed"][source] = self._data["born"][row]
            self.touch(source, int(self._data["born"][row]))

    def owed_by(self, row: int) -> Mapping[int, float]:
        """Return by how much an item's form with references grows once earlier rows no longer stand literally."""
        return self._offers.get(row, {})

    def unfold(self, row: int, *, visible: int, tokens: float) -> None:
        """Send an item whole that referred to earlier rows."""
        self.free(row)
        self.shorten(row, Action.KEEP, visible=visible, tokens=tokens)

    def free(self, row: int) -> None:
        """Note that an item refers to nothing any more."""
        for source, grows in self._relies.pop(row, {}).items():
            self._data["owed"][source] = max(0.0, self._data["owed"][source] - grows)

    def relying_on(self, rows: Iterable[int]) -> list[int]:
        """Return the items that refer to any of these rows, increasing."""
        gone = set(rows)
        return sorted(row for row, sources in self._relies.items() if not gone.isdisjoint(sources))

    def touch(self, row: int, call: int) -> None:
        """Note that the output of a call quoted an item: what was just used is likely to be used again."""
        self._data["last_use"][row] = call
        self._data["uses"][row] += 1

    def inherit(self, row: int, earlier: int) -> None:
        """Take over what is known of an item that is sent again from its earlier place."""
        for name in ("uses", "superseded"):
            self._data[name][row] = self._data[name][earlier]

    def show_file(self, row: int, subject: str) -> None:
        """Note what an item shows: a file read or changed, a listing, a plan. An earlier sight of it is superseded."""
        if subject in self._of_path:
            self._data["superseded"][self._of_path[subject]] = True
        self._of_path[subject] = row
        self._subjects[row] = subject

    def same_subject(self, row: int, other: int) -> bool:
        """Say whether two items show the same file, listing or plan."""
        return row in self._subjects and self._subjects[row] == self._subjects.get(other)

    def pin(self, row: int) -> None:
        """Never mask an item."""
        self._data["maskable"][row] = False

    def unpin(self, row: int, need: float) -> None:
        """Let an item that was pinned be masked, given the probability that it is needed again."""
        self._data["maskable"][row] = True
        self._data["need"][row] = need

    def settle(self, row: int) -> None:
        """Note that what a stub stands for has been sent again: it will not be needed from there."""
        self._data["need"][row] = 0.0

    def truncate(self, kept: int) -> list[DroppedItem]:
        """Drop what follows the first `kept` logged items, as an edited history demands, and return it."""
        beyond = np.flatnonzero(self.column("logged") >= kept)
        first = 0 if kept == 0 else int(beyond[0]) if beyond.size else self._size
        dropped = [
            DroppedItem(int(self._data["piece"][row]), int(self._data["visible"][row]), self.action(row))
            for row in range(first, self._size)
        ]
        for row in range(first, self._size):
            self.free(row)
            self._offers.pop(row, None)
            self._subjects.pop(row, None)
        self._size = first
        self._of_path = {path: row for path, row in self._of_path.items() if row < first}
        self.changed_from = min(self.changed_from, first)
        return dropped

    def without_handles(self) -> PlannedPrompt:
        """Return a view in which nothing more may go behind a handle; to be read until the prompt changes."""
        other = copy.copy(self)
        maskable = np.zeros_like(self._data["maskable"])
        other._data = {**self._data, "maskable": maskable, "selected": self._data["structured"]}  # noqa: SLF001  (ours)
        return other

    def snapshot(self) -> PlannedPrompt:
        """Return a copy that does not change any more."""
        other = copy.copy(self)
        other._data = {name: column[: self._size].copy() for name, column in self._data.items()}  # noqa: SLF001  (ours)
        return other

    def sent(self) -> None:
        """Note that the prompt has been sent as it stands."""
        self.changed_from = self._size

    def action(self, row: int) -> Action:
        """Return the form in which an item is sent."""
        return _ACTIONS[self._data["form"][row]]

    def shown(self, row: int) -> bool:
        """Say whether all of an item's text is sent, as it is or in a lossless form."""
        return bool(self._data["form"][row] in {_KEEP, _STRUCTURE})

    def structured_away(self) -> NDArray[np.float64]:
        """Return for each item the provider tokens that its lossless form saves; 0 where something is left out."""
        saved: NDArray[np.float64] = self.column("full_tokens") - self.column("tokens")
        form = self.column("form")
        return np.where((form == _STRUCTURE) | (form == _REFERENCE), saved, 0.0)

    def need_at(self, call: int) -> NDArray[np.float64]:
        """Return for each item the probability that it is needed again if it is masked before a call of the run."""
        return need_after(
            self.column("need"),
            uses=self.column("uses"),
            calls=call - self.column("last_use"),
            age=call - self.column("born"),
            superseded=self.column("superseded"),
        )


MAX_NEED = 0.95
"""Probabilities of a need above this are not believed."""


def need_after(
    prior: ArrayLike, *, uses: ArrayLike, calls: ArrayLike, age: ArrayLike, superseded: ArrayLike = False
) -> NDArray[np.float64]:
    """Return the probability that a tool result is needed again, in [0, 1].

    Log-odds are added up. They fall with the logarithm of the calls since the last use, rise with uses per call, and
    fall by one once a later call has read or changed the same file.

    Args:
        prior: The probability right after it was first sent (`prior_need`).
        uses: How many calls have quoted it.
        calls: Calls since it was last quoted, or else first sent.
        age: Calls since it was first sent.
        superseded: Whether a later call of the run read or changed the same file.
    """
    odds = np.asarray(prior, dtype=np.float64)
    odds = odds / (1.0 - np.minimum(odds, MAX_NEED))
    rate = np.minimum(uses, 3) / (1.0 + np.asarray(age))
    odds = odds * (1.0 + np.asarray(calls)) ** -0.8 * np.exp(1.5 * rate - 1.1 * np.asarray(superseded))
    need: NDArray[np.float64] = np.minimum(odds / (1.0 + odds), MAX_NEED)
    return need


def prior_need(
    tokens: float, *, tool: str | None, handed_back: bool, sub_agent: bool = False, written: bool = False
) -> float:
    """Return the probability, right after it was first sent, that a tool result is quoted again later, in [0, 1].

    A logistic regression on the size and on what is known of any coding agent, fitted once to samples of five sources
    and rounded; `benchmarks/prior_need.py` prints measured shares. Fitted without a source and tested on it, it ranked
    results better than size, age and uses alone on each of the five (docs/replay.md). Higher for what a search, the
    web or a sub-agent brought, which is read once and quoted, and for what the model wrote itself into the input of a
    tool, which it edits or runs again; lower in a sub-agent, which soon ends.
    """
    odds = -2.1 + 0.87 * math.log10(max(tokens, 1.0)) - 1.4 * sub_agent
    name = (tool or "").lower()
    if handed_back or written or name in SEARCHING_TOOLS:
        odds += 1.2
    elif name in READING_TOOLS:
        odds += 0.6
    return min(1.0 / (1.0 + math.exp(-odds)), MAX_NEED)


READING_TOOLS = frozenset({"read", "view", "cat", "open", "read_file", "view_file"})
"""Tools whose results are the text of a file."""

SEARCHING_TOOLS = frozenset(
    {"grep", "glob", "ls", "list", "search", "find", "toolsearch", "websearch", "webfetch", "web_search", "fetch"}
)
"""Tools whose results are found, not asked for by name."""

MOST_INPUT = 100_000
"""Characters of the longest tool input in which a path is looked for."""

_PATH_FIELDS = ("file_path", "filePath", "path", "notebook_path")


def subject_of(tool: str | None, tool_input: str) -> str | None:
    """Return what the result of a tool call shows as a whole: a file, a listing, the plan; `None` where it is nothing.

    >>> subject_of("Read", '{"file_path": "/a/b.py"}'), subject_of("Bash", '{"command": "make"}')
    ('/a/b.py', None)
    """
    name = (tool or "").lower()
    if name in LISTING:
        return f"{name}\0{tool_input}"
    return plan_of(tool) or path_of(tool_input)


def plan_of(tool: str | None) -> str | None:
    """Return a name for the plan that a tool writes or shows as a whole, or `None` where it does not."""
    return f"plan\0{tool}" if (tool or "").lower() in PLANNING else None


def path_of(tool_input: str) -> str | None:
    """Return the file that a tool call reads or changes, or `None`.

    >>> path_of('{"file_path": "/a/b.py", "limit": 10}')
    '/a/b.py'
    """
    if len(tool_input) > MOST_INPUT or not tool_input.startswith("{"):
        return None
    try:
        fields = json.loads(tool_input)
    except (ValueError, RecursionError):
        return None
    paths = (fields.get(name) for name in _PATH_FIELDS)
    return next((path for path in paths if isinstance(path, str) and path), None)
