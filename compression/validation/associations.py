r"""What belongs together in a text: numbers with their units, and keys with their values.

A number by itself may still stand somewhere after two values were swapped; the pair of key and value does not. These
are more than the facts of `facts.py` and cost more to read, so that only the check reads them, not the replay.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import re2

MAX_VALUE = 60
"""Characters of a value that belong to its pair; a longer value is prose or a list."""

_KEY = r"[\p{L}_./@~][\p{L}\p{N}_./@~-]{0,100}(?: [\p{L}\p{N}_./@~-]{1,60}){0,2}"
_VALUE = r"[^\s\"'`,;{}\[\]()*=][^\n\"`,;{}\[\]()*]*"
_PAIR = rf"({_KEY})[\"'`*_\])]*[ \t]*(?:[:=：]|:=)[ \t]*[\"'`*_(]*({_VALUE})"
_QUANTITY = r"([$€£¥]?)\b(\d+(?:[.,]\d+)*)(?:[ \t]?([$€£¥%‰°]|[\p{L}µ°][\p{L}/²³-]*))?(?:[^\p{L}\p{N}_]|$)"


def extract_quantities(text: str) -> frozenset[str]:
    """Return the distinct numbers that have a unit: a currency, a sign, or the word behind them on their line.

    >>> sorted(extract_quantities("wait 30 seconds, use 2.5GB, pay $1,200; 3 steps"))
    ['$1200', '2.5 GB', '3 steps', '30 seconds']
    """
    found: set[str] = set()
    for currency, number, unit in _pattern(_QUANTITY).findall(text.encode("utf-8", "replace")):
        if currency or unit:
            amount = currency + number.replace(b",", b"")
            found.add((amount + b" " + unit if unit else amount).decode("utf-8", "replace"))
    return frozenset(found)


def extract_pairs(text: str) -> frozenset[str]:
    """Return the distinct pairs of a key and its value, as `key: value`.

    A key is up to three words before a colon or an equals sign; its value ends with the line, or with a comma,
    semicolon, quote or bracket. Values of more than `MAX_VALUE` characters are left out.

    >>> sorted(extract_pairs('{"retries": 3, "host": "db1"} timeout=30'))
    ['host: db1', 'retries: 3', 'timeout: 30']
    """
    found: set[str] = set()
    for key, value in _pattern(_PAIR).findall(text.encode("utf-8", "replace")):
        said = b" ".join(value.split())
        if not said.startswith(b"//") and len(said) <= 4 * MAX_VALUE:
            shown = said.decode("utf-8", "replace")
            if len(shown) <= MAX_VALUE and any(map(str.isalnum, shown)):
                found.add(f"{key.decode('utf-8', 'replace')}: {shown}")
    return frozenset(found)


@cache
def _pattern(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern.encode(), options)
