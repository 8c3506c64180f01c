"""What a compaction has lost: what the user demanded and named, and which files were edited.

The account is made of the user's own words and of the paths that tools were given, never of what tools brought.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from apportion.compression.validation.constraints import constraint_sentences
from apportion.compression.validation.facts import extract_facts, missing_facts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MOST_LISTED = 20
"""Entries of each kind that are given back to the model."""

MOST_CHARACTERS = 300
"""Characters of an entry."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What a summary does not say.

    Attributes:
        constraints: Demands of the user, word for word.
        facts: Numbers, names, paths and quotations in what the user wrote.
        files: Files that were edited.
        checked: How many demands, facts and files there were.
    """

    constraints: tuple[str, ...]
    facts: tuple[str, ...]
    files: tuple[str, ...]
    checked: int

    @property
    def lost(self) -> int:
        """How many of them the summary does not say."""
        return len(self.constraints) + len(self.facts) + len(self.files)

    def note(self) -> str:
        """Return what the model is told, or an empty text where nothing is missing."""
        if not self.lost:
            return ""
        lines = ["apportion: the summary of the conversation does not say the following."]
        for title, entries in (
            ("The user demanded", self.constraints),
            ("The user named", self.facts),
            ("Files that were edited", self.files),
        ):
            if entries:
                more = len(entries) - MOST_LISTED
                shown = [_one_line(entry) for entry in entries[:MOST_LISTED]]
                lines += [f"{title}:", *(f"- {entry}" for entry in shown)]
                if more > 0:
                    lines.append(f"- and {more} more, in the transcript")
        return "\n".join(lines)


def loss(said: Sequence[str], edited: Iterable[str], summary: str) -> Loss:
    """Compare a summary with what the user said and what was edited.

    Args:
        said: The user's texts, in order.
        edited: Paths of files that were edited.
        summary: What is left of the conversation.
    """
    flat = " ".join(summary.split()).casefold()
    constraints = dict.fromkeys(sentence for text in said for sentence in constraint_sentences(text))
    unsaid = tuple(sentence for sentence in constraints if " ".join(sentence.split()).casefold() not in flat)
    facts: frozenset[str] = frozenset().union(*map(extract_facts, said)) if said else frozenset()
    in_unsaid: frozenset[str] = frozenset().union(*map(extract_facts, unsaid)) if unsaid else frozenset()
    missing = missing_facts(facts, summary) - in_unsaid
    files = tuple(path for path in dict.fromkeys(edited) if path not in summary and _name(path) not in summary)
    checked = len(constraints) + len(facts) + len(set(edited))
    return Loss(unsaid, tuple(sorted(missing)), files, checked)


def _name(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2] or path


def _one_line(text: str) -> str:
    shown = "".join(mark if mark.isprintable() else " " for mark in text)
    return " ".join(shown.split())[:MOST_CHARACTERS]
