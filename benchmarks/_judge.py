"""A second reading of what a text states, by no rule of the first: to judge what was optimised for the first.

`apportion.compression.validation.facts` finds facts by patterns; cutting is free where those stand elsewhere.
Here a text is cut at blanks, brackets and quotes, and every word counts that is unlike those of a dictionary: with a
digit, an inner capital, an underscore, a slash or a dot inside, or a capital in the middle of a sentence.
"""

from __future__ import annotations

_SEPARATORS = str.maketrans(dict.fromkeys("\"'`()[]{}<>,;|=*→:!?\\", " "))
_ENDS = "._-/#@+~$%&^"
MIN_CHARS = 3


def judged_facts(text: str) -> frozenset[str]:
    """Return the distinct words that say something particular.

    >>> sorted(judged_facts("Then Alice ran src/app.py: 404 of 512 OK, see maxTokens."))
    ['404', '512', 'Alice', 'maxTokens', 'src/app.py']
    """
    found = set()
    begins = True
    for raw in text.translate(_SEPARATORS).split():
        word = raw.strip(_ENDS)
        if len(word) >= MIN_CHARS and (_is_particular(word) or (word[0].isupper() and not begins)):
            found.add(word)
        begins = raw[-1] in ".!?" or not word
    return frozenset(found)


def judged_missing(facts: frozenset[str], text: str) -> frozenset[str]:
    """Return the words that a text does not show, not even within a longer one."""
    absent = facts - judged_facts(text)
    return frozenset(word for word in absent if word not in text)


def _is_particular(word: str) -> bool:
    inner = word[1:]
    return (
        any(mark.isdigit() for mark in word)
        or any(mark.isupper() for mark in inner)
        or any(mark in inner[:-1] for mark in "_/.")
    )
