r"""Sentences that bind, and words that negate: what a shortened text must keep as it is.

No similarity of meaning sees a lost "not", and hardly any sees a lost constraint. So they are found by their words, in
English, German, French, Spanish, Chinese and Japanese.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import re2

MAX_SENTENCE = 1000
"""Characters of the longest sentence that counts as a constraint; what is longer is data."""

_SPACED = (
    # English
    "must|shall|never|always|only|unless|except|required|requires?|mandatory|obligatory|forbidden|prohibited|disallowed|"
    "not allowed|not permitted|do not|does not apply|don['’]t|may not|can ?not|can['’]t|should(?: not|n['’]t)?|"
    "ha(?:s|ve) to|need(?:s|ed)? to|at most|at least|no (?:more|less|fewer|later|earlier) than|under no|in no case|"
    "without exception|"
    # German
    "muss|musst|müssen|müsst|darf|darfst|dürfen|nie|niemals|nur|ausschließlich|außer|ausser|es sei denn|verboten|"
    "untersagt|erforderlich|zwingend|verpflichtend|höchstens|mindestens|keinesfalls|"
    # French
    "doit|doivent|devez|jamais|seulement|uniquement|sauf|à moins|interdite?s?|obligatoires?|requise?s?|il faut|"
    "ne pas|au plus|au moins|"
    # Spanish
    "debe|deben|debes|nunca|jamás|sol[oa]|sólo|solamente|salvo|excepto|a menos|prohibid[oa]s?|obligatori[oa]s?|"
    "requerid[oa]s?|como máximo|al menos"
)
_LEADING = "únicamente|à condition"
_UNSPACED = (
    "必须|必須|不得|禁止|只能|只有|仅|僅|除非|不要|务必|務必|不可|不能|严禁|嚴禁|"
    "必ず|なければならない|てはならない|てはいけない|のみ|だけ|限り|決して"
)
_CONSTRAINT = rf"(?i)\b(?:{_SPACED})\b|(?:{_LEADING})\b|{_UNSPACED}"

_NEGATIONS = (
    "no not never none nor neither without cannot nothing nobody nowhere hardly non un false False disabled off "
    "nicht kein keine keinen keinem keiner keines nie niemals ohne weder noch "
    "ne pas jamais aucun aucune sans ni nunca jamás ningún ninguna ninguno nada sin tampoco "
    "不 没 無 无 非 未 別 别 ない ません なし ず !"
)
NEGATIONS = frozenset(_NEGATIONS.split())
"""Words that turn what is said into its opposite; those that end in n't count as well."""

_END = r"([.!?…][\"'”’)\]*_`]*)[ \t\f\v]+|([。！？])"
_BULLET = r"(?m)^[ \t]*(?:[-*+•>#]+[ \t]+)+"
_WRAP = r"([\p{Ll},])[ \t]*\r?\n[ \t]*(\p{Ll})"


def sentences(text: str) -> tuple[str, ...]:
    r"""Return the sentences of a text, without white space around them and bullets before them.

    A line end ends a sentence too, unless the line is wrapped: the next one begins with a small letter.

    >>> sentences("Wait for it. Never push\nto main! 不得删除。好")
    ('Wait for it.', 'Never push to main!', '不得删除。', '好')
    """
    return tuple(sentence for line in _split(text).decode().split("\n") if (sentence := line.strip()))


def _split(text: str) -> bytes:
    """Return a text with its sentences on lines of their own."""
    data = _pattern(_BULLET).sub(b"", text.encode("utf-8", "replace"))
    data = _pattern(_WRAP).sub(rb"\1 \2", data)
    return bytes(_pattern(_END).sub(rb"\1\2\n", data))


def constraint_sentences(text: str) -> tuple[str, ...]:
    """Return the sentences that bind: that say what must, must not or may only be, or where a rule does not hold.

    >>> constraint_sentences("Deploy daily. Never deploy on Friday unless asked. 请注意。不得删除文件。")
    ('Never deploy on Friday unless asked.', '不得删除文件。')
    """
    data, pattern, found, position = _split(text), _pattern(_CONSTRAINT), [], 0
    while match := pattern.search(data, position):
        start = data.rfind(b"\n", position, match.start()) + 1 or position
        end = data.find(b"\n", match.end())
        end = len(data) if end < 0 else end
        if (
            end - start <= 4 * MAX_SENTENCE
            and len(sentence := data[start:end].decode("utf-8", "replace").strip()) <= MAX_SENTENCE
        ):
            found.append(sentence)
        position = end + 1
        if position > len(data):
            break
    return tuple(found)


def is_negation(word: str) -> bool:
    """Say whether a word negates.

    >>> is_negation("not"), is_negation("Don't"), is_negation("note")
    (True, True, False)
    """
    return word in NEGATIONS or word.lower() in NEGATIONS or word.lower().endswith("n't")


@cache
def _pattern(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern.encode(), options)
