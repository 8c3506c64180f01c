"""Scenarios: real contents with a task, what must not get lost of them, and questions with their answers.

    fixtures/scenarios/FAMILY.toml        a table [[scenario]] for each content of the family
    fixtures/scenarios/FAMILY/NAME.txt    the contents themselves, byte for byte

A *fact* is a string of the content that a receiver with this task must see, or be able to have back. It is *exact*
where the result holds it word for word, *visible* where the result at least shows each of its words (a table states the
values of a row and no longer the marks between them), and *recoverable* where it is visible or stands in a part that a
handle gives back.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import re2

from apportion.compression.validation.facts import missing_facts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apportion.compression.store import HandleStore
    from apportion.compression.strategies.types import Gap, Outcome

FOLDER = Path(__file__).parents[1] / "fixtures" / "scenarios"
"""Where the scenarios of this repository are."""

KEYS = {"name", "language", "source", "licence", "task", "facts", "questions"}
"""What each scenario has, and nothing else."""

MAX_BYTES = 20_000
"""A content is small, so that a person can read it."""

_WORD = re2.compile(r"[\pL\pM\pN_.%+-]+")


class Question(NamedTuple):
    """A question that a receiver needs answered, and the answer as it stands in the content."""

    question: str
    answer: str


class Scenario(NamedTuple):
    """A content, what it is for, and what must not get lost of it."""

    family: str
    name: str
    language: str
    source: str
    licence: str
    task: str
    content: bytes
    facts: tuple[str, ...]
    questions: tuple[Question, ...]

    def __str__(self) -> str:
        return f"{self.family}/{self.name}"


def load_scenarios(folder: Path = FOLDER) -> list[Scenario]:
    """Return all scenarios of a folder, in the order of families and names.

    Raises:
        ValueError: A scenario lacks something, has something that is not known, or states a fact or an answer that its
            content does not hold; the message names it.
    """
    found = [scenario for path in sorted(folder.glob("*.toml")) for scenario in _family(path)]
    unlisted = {path.relative_to(folder).as_posix() for path in folder.glob("*/*")} - {f"{one}.txt" for one in found}
    if unlisted:
        raise ValueError(f"contents without a scenario: {', '.join(sorted(unlisted))}")
    return sorted(found, key=str)


def _family(path: Path) -> Iterator[Scenario]:
    tables = tomllib.loads(path.read_text(encoding="utf-8"))["scenario"]
    names = [table.get("name") for table in tables]
    if len(set(names)) < len(names):
        raise ValueError(f"{path.name}: two scenarios have the same name")
    for table in tables:
        yield _scenario(path, table)


def _scenario(path: Path, table: dict[str, Any]) -> Scenario:
    label = f"{path.stem}/{table.get('name')}"
    if set(table) != KEYS:
        raise ValueError(f"{label}: {', '.join(sorted(set(table) ^ KEYS))} missing or not known")
    content = (path.with_suffix("") / f"{table['name']}.txt").read_bytes()
    text = content.decode()
    facts = tuple(table.pop("facts"))
    questions = tuple(Question(**question) for question in table.pop("questions"))
    for string in (*facts, *(question.answer for question in questions)):
        if not string.strip() or string not in text:
            raise ValueError(f"{label}: the content does not hold {string!r}")
    if not facts or not questions or not all(table.values()) or not all(question for question, _ in questions):
        raise ValueError(f"{label}: something is empty")
    if len(content) > MAX_BYTES:
        raise ValueError(f"{label}: {len(content)} bytes are more than {MAX_BYTES}")
    return Scenario(family=path.stem, content=content, facts=facts, questions=questions, **table)


def is_exact(string: str, outcome: Outcome) -> bool:
    """Say whether a result holds a string word for word."""
    return string.encode() in outcome.content


def is_visible(string: str, outcome: Outcome) -> bool:
    """Say whether a result holds a string, or shows each word of it."""
    return is_exact(string, outcome) or not missing_facts(
        _WORD.findall(string), outcome.content.decode("utf-8", "replace")
    )


def is_recoverable(string: str, outcome: Outcome, store: HandleStore) -> bool:
    """Say whether a string is visible, or stands in the original where a handle of the result gives it back."""
    return is_visible(string, outcome) or any(
        _holds(gap, string.encode(), outcome.original, store) for gap in outcome.gaps
    )


def _holds(gap: Gap, wanted: bytes, original: bytes, store: HandleStore) -> bool:
    """Say whether a string lies in a left-out part or reaches into it, and the store gives that part back."""
    start, end = gap.span
    near = original[max(0, start - len(wanted) + 1) : end + len(wanted) - 1]
    return wanted in near and store.expand(gap.handle, start, end) == original[start:end]
