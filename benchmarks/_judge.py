"""A second opinion on what a text shows, for evaluation alone: facts found by the classes of characters.

The facts of the product are found by patterns, and strategies keep what those patterns find. A result judged by them
alone looks better than it is. So this judge shares nothing with them, and lives here, where no strategy can import it:
text is cut wherever the class of its characters changes from word to blank, and a run counts as a fact for what it is
made of, without any idea of paths, dates or names.
"""

from __future__ import annotations

from itertools import groupby, pairwise

INNER = "._-/:@#$%+~\\"
"""Marks that hold a run together; at its ends they are punctuation."""

OUTER = INNER + ",;!?'\"`()[]{}<>|*=&^"
"""Marks that are taken off both ends of a run."""


def judged_facts(text: str) -> frozenset[str]:
    """Return the distinct runs that carry a fact.

    A run of letters, digits and inner marks is one if it has a digit, an inner mark between letters, a capital behind a
    small letter, or is a word in capitals, all of two characters or more.

    >>> sorted(judged_facts("See src/app.py: it took 12ms (max 7), says DB-Admin. max_tokens=30"))
    ['12ms', '30', 'DB-Admin', 'max_tokens', 'src/app.py']
    """
    found = (("".join(run)).strip(OUTER) for inside, run in groupby(text, key=_is_inside) if inside)
    return frozenset(run for run in found if len(run) > 1 and _carries(run))


def judged_share(original: str, result: str) -> float:
    """Return the share of an original's facts that a result shows, in [0, 1], counted by this judge.

    >>> judged_share("a1 b2 c3 d4", "a1, b2 and c3")
    0.75
    """
    facts = judged_facts(original)
    return len(facts & judged_facts(result)) / len(facts) if facts else 1.0


def judged_missing(facts: frozenset[str], text: str) -> frozenset[str]:
    """Return the facts that a text does not show, not even within a longer run."""
    return frozenset(fact for fact in facts - judged_facts(text) if fact not in text)


def _is_inside(mark: str) -> bool:
    return mark.isalnum() or mark in INNER


def _carries(run: str) -> bool:
    shapes = ["9" if mark.isdigit() else "a" if mark.islower() else "A" if mark.isupper() else "." for mark in run]
    if "9" in shapes:
        return True
    if "." in shapes and any(mark.isalnum() for mark in run):
        return any(mark in INNER for mark in run)
    turns = {one + other for one, other in pairwise(shapes)}
    return "aA" in turns or turns == {"AA"}
