"""Whether a text still says what a statement says: coverage of its words, not understanding.

    supports(text, "The service was restarted at 10:42.").present

The words that carry the statement are sought in the text, cut to their stems, so that inflection does not matter.
Numbers and names weigh more than other words, and each of them that is missing counts against the statement as a
whole. They must stand together: the best window of a few sentences counts, not the whole text. Other words of the same
meaning are not recognised; whoever has embeddings can hand in a measure of similarity that is asked in doubt.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from apportion.compression.validation.constraints import is_negation, sentences
from apportion.compression.validation.wording import read_words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WINDOW = 3
"""Sentences that a statement may be spread over."""

NAME_WEIGHT = 2.0
"""Weight of a number, an identifier or a name, where another word has 1: it cannot be said in other words."""

PRESENT = 0.7
"""Score from which a statement counts as present: no more than about a third of what carries it may be missing."""

DOUBT = 0.3
"""How far below `PRESENT` the measure of similarity is asked."""

STEM = 5
"""Letters by which words are compared where the rest looks like an inflection."""

_EMPTY_WORDS = (
    "a an the of to in on at by for with from as into and or but if than then that this these those it its he she they "
    "his her their them him we you i me my our your who whom which what when where is are was were be been being am "
    "has have had do does did will would can could may might shall should there here also just very so such about "
    "after before during while over under up down out off again more most some any each other own same"
)
_EMPTY = frozenset(_EMPTY_WORDS.split())
"""Words that carry little by themselves."""

_ENDINGS = ("ingly", "edly", "ings", "ies", "ied", "ing", "est", "ers", "ed", "es", "er", "ly", "s", "d", "e", "y")


class Support(NamedTuple):
    """How far a text says what a statement says.

    Attributes:
        present: Whether it counts as said.
        score: Weighted share of the statement's words that stand together in the text, in [0, 1].
        missing: The words that do not, in their order.
    """

    present: bool
    score: float
    missing: tuple[str, ...]


def supports(text: str, statement: str, *, similarity: Callable[[str, str], float] | None = None) -> Support:
    """Say whether a text still says what a statement says.

    Args:
        text: What is left of a text.
        statement: One sentence.
        similarity: Gives two texts' similarity in meaning, in [-1, 1]; asked where words alone leave a doubt.

    >>> supports("Anna Weber restarted the service at 10:42.", "The service was restarted at 10:42.")
    Support(present=True, score=1.0, missing=())
    >>> supports("Anna restarted it at 10:42.", "The database was restarted at 10:45.").missing
    ('database', '45')
    """
    asked = _carriers(statement)
    if not asked:
        return Support(present=True, score=1.0, missing=())
    stems = _windows(text)
    weights = {stem: weight for stem, weight, _ in asked}
    best = max(stems, key=lambda window: _covered(weights, window), default=frozenset())
    score = _covered(weights, best) / sum(weights.values())
    missing = tuple(word for stem, _, word in asked if stem not in best)
    present = score >= PRESENT
    if not present and similarity is not None and score >= PRESENT - DOUBT:
        present = similarity(text, statement) >= PRESENT
    return Support(present, score, missing)


def _covered(weights: dict[str, float], window: frozenset[str]) -> float:
    return sum(weight for stem, weight in weights.items() if stem in window)


@lru_cache(maxsize=256)
def _windows(text: str) -> Sequence[frozenset[str]]:
    """Return the stems of each few sentences that follow one another."""
    stems = [frozenset(map(_stem, _lower(sentence))) for sentence in sentences(text)]
    count = max(1, len(stems) - WINDOW + 1)
    return [frozenset().union(*stems[start : start + WINDOW]) for start in range(count)]


def _carriers(statement: str) -> list[tuple[str, float, str]]:
    """Return stem, weight and word of what carries a statement."""
    found: dict[str, tuple[str, float, str]] = {}
    for number, word in enumerate(_words(statement)):
        lower = word.lower()
        if lower in _EMPTY and not is_negation(lower):
            continue
        is_name = any(map(str.isdigit, word)) or "_" in word or (number > 0 and word[:1].isupper())
        stem = _stem(lower)
        found.setdefault(stem, (stem, NAME_WEIGHT if is_name else 1.0, word))
    return list(found.values())


def _words(text: str) -> list[str]:
    return [word.decode("utf-8", "replace") for word in read_words(text.encode("utf-8", "replace")).words]


def _lower(text: str) -> list[str]:
    return [word.lower() for word in _words(text)]


@lru_cache(maxsize=65_536)
def _stem(word: str) -> str:
    word = word.removesuffix("'s").removesuffix("'")
    if not word.isalpha() or len(word) < STEM:
        return word.removesuffix("s") if len(word) == STEM - 1 else word
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word.removesuffix(ending)
            break
    return word[: STEM + 1]
