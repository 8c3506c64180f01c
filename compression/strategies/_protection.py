"""Lines that a cut must not take: what the task asks about, and the skeleton that says what the rest belongs to.

The skeleton are definitions, headings, titles of changes, error lines and sentences that bind. Which lines have to do
with the task is told by BM25 over lines (Robertson and Zaragoza, The Probabilistic Relevance Framework, 2009).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import re2

from apportion.compression.validation.facts import MAX_ERROR_LINE, error_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

QUERY_SHARE = 0.05
"""Share of the lines that are kept because they have most to do with the task; each with its neighbours."""

K1, B = 1.2, 0.75
"""How soon repetition stops to count, and how much length does: the usual values of BM25."""

MAX_TASK_CHARS = 4_000
"""So much of a task is read, from its beginning and from its end."""

_MODIFIER = r"(?:(?:export|default|public|private|protected|static|async|abstract|pub|final|override)[ \t]+)*"
_DEFINITION = r"(?:def|class|func|fn|function|interface|type|struct|enum|impl|trait|module|CREATE TABLE)[ \t]"
_SKELETON = (
    rf"(?m:^)[ \t\d→|:+>-]*(?:{_MODIFIER}{_DEFINITION}|#{{1,6}} |\*\*\w|=== )|"
    r"(?m:^)(?:@@ |diff --git |\+\+\+ |--- \w)|"
    r"(?i:\b(?:must|never|always|only|unless|except|required|shall|cannot|do not|don't|forbidden|important|warning)\b)"
)
_WORDS = str.maketrans({chr(code): " " for code in range(128) if not (chr(code).isalnum() or chr(code) == "_")})


def words_of(text: str) -> list[str]:
    """Return the words of a text in small letters; every mark of ASCII separates them.

    >>> words_of("Fix test_it (in src/app.py)!")
    ['fix', 'test_it', 'in', 'src', 'app', 'py']
    """
    return text.lower().translate(_WORDS).split()


def skeleton(lines: Sequence[str]) -> set[int]:
    """Return the numbers of the lines, counted from 0, that say what others belong to, or what must be.

    Args:
        lines: Lines of a text, each with the line feed behind it.
    """
    text = "".join(lines)
    data = text.encode("utf-8", "replace")
    sizes = map(len, lines) if len(data) == len(text) else (len(line.encode("utf-8", "replace")) for line in lines)
    starts = list(accumulate(sizes, initial=0))
    found = {bisect_right(starts, match.end() - 1) - 1 for match in _pattern().finditer(data)}
    errors = error_lines(text)
    if errors:
        found.update(number for number, line in enumerate(lines) if line.strip()[:MAX_ERROR_LINE] in errors)
    return found


def asked_for(words: Sequence[Sequence[str]], task: str) -> set[int]:
    """Return the numbers of the lines that have most to do with a task, and of those beside them.

    Args:
        words: Words of each line, by `words_of`.
        task: What the text is needed for; empty where unknown.
    """
    asked = task if len(task) <= 2 * MAX_TASK_CHARS else task[:MAX_TASK_CHARS] + task[-MAX_TASK_CHARS:]
    terms = frozenset(words_of(asked))
    if not terms or not words:
        return set()
    hits = [Counter(word for word in line if word in terms) for line in words]
    holders = Counter(term for line in hits for term in line)
    count, mean = len(words), sum(map(len, words)) / len(words) or 1.0
    rarity = {term: math.log(1 + (count - some + 0.5) / (some + 0.5)) for term, some in holders.items()}

    def score(number: int) -> float:
        damp = K1 * (1 - B + B * len(words[number]) / mean)
        return sum(rarity[term] * often * (K1 + 1) / (often + damp) for term, often in hits[number].items())

    scored = sorted(((score(number), number) for number, found in enumerate(hits) if found), reverse=True)
    best = [number for _, number in scored[: math.ceil(QUERY_SHARE * count)]]
    return {near for number in best for near in (number - 1, number, number + 1) if 0 <= near < count}


@cache
def _pattern() -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 64 << 20
    options.encoding = re2.Options.Encoding.UTF8
    return re2.compile(_SKELETON.encode(), options)
