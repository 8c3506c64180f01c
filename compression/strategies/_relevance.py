"""How much each piece of a text has to do with a task: BM25, its surroundings, and names that lead further.

Nothing is learned and nothing is known in advance but a list of English function words: how rare a term is is told from
the text itself. Scripts without spaces between words are compared by pairs of characters.

Sources: Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond (2009); Harman, How effective is
suffixing? (1991), for the endings.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from apportion.compression.strategies._pieces import Piece

K1, B = 1.2, 0.75
"""How soon repetition stops to count, and how much length does: the usual values of BM25."""

PASSAGE_WEIGHT = 0.25
"""What the passage as a whole counts, beside the piece itself."""

HEAD_WEIGHT = 0.5
"""What the words of the heading count, beside those below it."""

NEAR, NEXT = 0.25, 0.125
"""Share of its score that a piece gives to its neighbours in the passage, and to theirs."""

PAIR_WEIGHT = 0.5
"""What two words count in addition that stand side by side, as they do in the task."""

HOP_WEIGHT = 0.4
"""What names count that are found in the best pieces, beside the words of the task."""

HOP_SOURCES = 4
"""Pieces in which names are looked for."""

MEANING_WEIGHT = 0.5
"""What an embedding counts, beside the words."""

LEAD = 0.05
"""What the first piece of a passage has in advance, as a share of the best score: it says what the passage is about."""

_STOP = frozenset(
    {
        "a", "an", "the", "of", "in", "on", "at", "to", "for", "and", "or", "is", "are", "was", "were", "be",
        "been", "being", "by", "with", "from", "as", "that", "this", "these", "those", "it", "its", "he", "she",
        "they", "them", "his", "her", "him", "their", "i", "me", "my", "we", "us", "you", "our", "your", "not",
        "no", "do", "does", "did", "done", "has", "have", "had", "will", "would", "can", "could", "should", "may",
        "might", "what", "who", "whom", "whose", "which", "when", "where", "why", "how", "than", "then", "there",
        "here", "so", "if", "but", "about", "into", "over", "after", "before", "between", "during", "up", "down",
        "out", "also", "any", "all", "some", "each", "other", "such", "same", "only", "own", "both", "more",
        "most", "very", "just", "because", "while",
        "s", "t", "re", "ve", "ll",  # what an apostrophe leaves
    }
)  # fmt: skip
_LINKS = frozenset(
    {
        "of", "the", "de", "la", "le", "von", "van", "der", "den", "del", "di", "da", "al", "bin", "y", "and",
    }
)  # fmt: skip


class _Words(dict[int, int]):
    """Translates what is neither letter nor digit nor `_` to a blank; marks of letters stay."""

    def __missing__(self, code: int) -> int:
        character = chr(code)
        self[code] = code if character.isalnum() or code == 0x5F or 0x300 <= code < 0x370 or _marks(code) else 0x20
        return self[code]


def _marks(code: int) -> bool:
    """Say whether a character is within a script that writes vowels as marks."""
    return 0x0900 <= code < 0x1100


_WORDS = _Words()


def terms_of(text: str) -> list[str]:
    """Return the terms of a text in their order: words without endings, parts of identifiers, pairs of characters.

    >>> terms_of("What did the Cities of parseHttp say?")
    ['city', 'parsehttp', 'pars', 'http', 'say']
    >>> terms_of("東京都")
    ['東京', '京都']
    """
    found: list[str] = []
    for word in text.translate(_WORDS).split():
        if word.isascii():
            lower = word.lower()
            if lower in _STOP:
                continue
            found.append(_stem(lower))
            if "_" in word or (len(word) > 3 and not word.islower() and not word.isupper() and not word.istitle()):
                found += [_stem(part.lower()) for part in _identifier_parts(word) if len(part) > 1]
        else:
            found += _runs(word.casefold())
    return found


def _stem(word: str) -> str:
    if len(word) < 4 or not word.isalpha():
        return word
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith("s") and word[-2] not in "us":
        word = word[:-1]
    if word.endswith("ing") and len(word) > 5:
        word = _single(word[:-3])
    elif word.endswith("ed") and len(word) > 4:
        word = _single(word[:-2])
    return word[:-1] if word.endswith("e") and len(word) > 3 else word


def _single(stem: str) -> str:
    return stem[:-1] if len(stem) > 3 and stem[-1] == stem[-2] and stem[-1] not in "aeiouls" else stem


def _identifier_parts(word: str) -> Iterable[str]:
    start = 0
    for at in range(1, len(word) + 1):
        if at == len(word) or word[at] == "_" or (word[at].isupper() and not word[at - 1].isupper()):
            part = word[start:at].strip("_")
            if part and part != word:
                yield part
            start = at


def _runs(word: str) -> Iterable[str]:
    """Yield a word that may hold runs of a script without spaces: pairs of characters for those."""
    start = 0
    for at in range(1, len(word) + 1):
        if at == len(word) or _unspaced(word[at]) != _unspaced(word[start]):
            run = word[start:at]
            if _unspaced(run[0]):
                yield from (run[i : i + 2] for i in range(max(1, len(run) - 1)))
            else:
                yield run if not run.isascii() else _stem(run)
            start = at


def _unspaced(character: str) -> bool:
    """Say whether a character is of Thai, Lao, Burmese, Khmer, Japanese or Chinese."""
    code = ord(character)
    return (
        0x0E00 <= code < 0x0F00
        or 0x1000 <= code < 0x10A0
        or 0x1780 <= code < 0x1800
        or 0x2E80 <= code < 0xA4D0
        or 0xF900 <= code < 0xFB00
        or 0x20000 <= code < 0x40000
    )


def bm25(documents: Sequence[Sequence[str]], weights: Mapping[str, float]) -> list[float]:
    """Return the score of each document for weighted terms; documents that hold none of them have 0."""
    counts = [Counter(term for term in document if term in weights) for document in documents]
    holding = Counter(term for count in counts for term in count)
    number = len(documents)
    mean = sum(map(len, documents)) / max(1, number) or 1.0
    rarity = {
        term: weights[term] * math.log(1 + (number - held + 0.5) / (held + 0.5)) for term, held in holding.items()
    }
    return [
        sum(
            rarity[term] * count * (K1 + 1) / (count + K1 * (1 - B + B * len(document) / mean))
            for term, count in found.items()
        )
        for found, document in zip(counts, documents, strict=True)
    ]


def relevance(pieces: Sequence[Piece], task: str, meaning: Sequence[float] | None = None) -> list[float]:
    """Return how much each piece has to do with a task; only the order and the ratios mean anything.

    Args:
        pieces: What a text consists of.
        task: What it is for; where no word of it occurs, those pieces count that are most like the rest.
        meaning: What an embedding says of each piece, in [0, 1]; `None` where it is not known.
    """
    terms = [terms_of(piece.text) for piece in pieces]
    asked = dict.fromkeys(terms_of(task), 1.0)
    passages = _Passages(pieces, terms)
    scores = passages.score(asked)
    best = max(scores, default=0.0)
    if best <= 0:
        scores = _centrality(terms)
        best = max(scores, default=0.0) or 1.0
    else:
        names = _names(pieces, scores, set(asked))
        hop = passages.score(names) if names else []
        top = max(hop, default=0.0)
        if top > 0:
            scores = [score + HOP_WEIGHT * best * more / top for score, more in zip(scores, hop, strict=True)]
    if meaning is not None:
        scores = [score + MEANING_WEIGHT * best * more for score, more in zip(scores, meaning, strict=True)]
    first = passages.firsts()
    return [score + (LEAD * best if number in first else 0.0) for number, score in enumerate(scores)]


def ranking(pieces: Sequence[Piece], task: str, meaning: Sequence[float] | None = None) -> list[int]:
    """Return the pieces in the order in which they are worth keeping.

    First comes, for each word of the task that occurs, the best piece that holds it, so that no part of the task is
    left without an answer because another part has many; then all by their relevance.
    """
    scores = relevance(pieces, task, meaning)
    order = sorted(range(len(pieces)), key=lambda number: (-scores[number], number))
    missing = set(terms_of(task))
    first: list[int] = []
    for number in order:
        if not missing:
            break
        found = missing.intersection(terms_of(pieces[number].text))
        if found:
            first.append(number)
            missing -= found
    chosen = set(first)
    return first + [number for number in order if number not in chosen]


class _Passages:
    """The pieces of a text with the passages they belong to."""

    def __init__(self, pieces: Sequence[Piece], terms: Sequence[list[str]]) -> None:
        self._pieces = pieces
        self._terms = terms
        self._of = [piece.passage for piece in pieces]
        self._joined: list[list[str]] = [[] for _ in range(max(self._of, default=-1) + 1)]
        for passage, found in zip(self._of, terms, strict=True):
            self._joined[passage] += found

    def firsts(self) -> set[int]:
        """Return the first piece of each passage that is not its heading."""
        seen: set[int] = set()
        found: set[int] = set()
        for number, piece in enumerate(self._pieces):
            if not piece.is_head and piece.passage not in seen:
                seen.add(piece.passage)
                found.add(number)
        return found

    def score(self, weights: Mapping[str, float]) -> list[float]:
        """Return what each piece has to do with weighted terms, its passage, heading and neighbours included."""
        own = bm25(self._terms, weights)
        pairs = _pairs(self._terms, list(weights))
        own = [score * (1 + PAIR_WEIGHT * pair) for score, pair in zip(own, pairs, strict=True)]
        heads = [own[piece.head] if piece.head is not None else 0.0 for piece in self._pieces]
        own = [score + HEAD_WEIGHT * head for score, head in zip(own, heads, strict=True)]
        whole = bm25(self._joined, weights)
        best, top = max(own, default=0.0), max(whole, default=0.0)
        if best <= 0 or top <= 0:
            return own
        spread = [
            score
            + NEAR * max(self._at(own, i, -1), self._at(own, i, 1))
            + NEXT * max(self._at(own, i, -2), self._at(own, i, 2))
            for i, score in enumerate(own)
        ]
        return [
            score + PASSAGE_WEIGHT * best * whole[passage] / top
            for score, passage in zip(spread, self._of, strict=True)
        ]

    def _at(self, scores: Sequence[float], number: int, step: int) -> float:
        other = number + step
        return scores[other] if 0 <= other < len(scores) and self._of[other] == self._of[number] else 0.0


def _pairs(terms: Sequence[list[str]], asked: Sequence[str]) -> list[float]:
    """Return the share of pairs of neighbours in the task that are neighbours in each piece, too."""
    pairs = set(itertools.pairwise(asked))
    if not pairs:
        return [0.0] * len(terms)
    return [len(pairs.intersection(itertools.pairwise(found))) / len(pairs) for found in terms]


def _names(pieces: Sequence[Piece], scores: Sequence[float], known: set[str]) -> dict[str, float]:
    """Return the terms of names that the best pieces state and the task does not, each with its weight."""
    sources = sorted(range(len(pieces)), key=lambda i: (-scores[i], i))[:HOP_SOURCES]
    best = scores[sources[0]]
    weights: dict[str, float] = {}
    for number in sources:
        for name in names_in(pieces[number].text):
            for term in terms_of(name):
                if term not in known:
                    weights[term] = max(weights.get(term, 0.0), scores[number] / best)
    return weights


def names_in(text: str) -> list[str]:
    """Return what looks like a name: words with capitals that follow each other, identifiers, numbers with digits.

    >>> names_in("The band was formed by Ana of Porto in 1999 with max_size.")
    ['Ana of Porto', '1999', 'max_size']
    """
    found: list[str] = []
    run: list[str] = []
    for number, word in enumerate([*text.split(), "."]):
        bare = word.strip(".,;:!?()[]{}\"'«»“”‘’")
        named = bare[:1].isupper() and not (number == 0 and bare.lower() in _STOP)
        if named and bare.lower() not in _STOP:
            run.append(bare)
        elif run and bare in _LINKS and word == bare:
            run.append(bare)
            continue
        else:
            found += _closed(run)
            if any(map(str.isdigit, bare)) or "_" in bare:
                found.append(bare)
            continue
        if word[-1:] in ".,;:!?)":
            found += _closed(run)
    return found


def _closed(run: list[str]) -> list[str]:
    while run and run[-1] in _LINKS:
        run.pop()
    name = [" ".join(run)] if run else []
    run.clear()
    return name


def _centrality(terms: Sequence[list[str]]) -> list[float]:
    """Return how much each piece says of what is spoken of throughout the text, per term."""
    holding = Counter(term for found in terms for term in set(found))
    number = max(1, len(terms))
    weight = {term: held * math.log(1 + number / held) for term, held in holding.items()}
    return [sum(weight[term] for term in set(found)) / (len(found) + 5) for found in terms]
