"""What a provider would count and charge: a prompt cache that is shared by all agents, and list prices.

It knows nothing of plans: it sees texts, and compares the beginning of a prompt with what it has seen before.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from apportion.planner.replay.billing import split_prompt, tariff
from apportion.prices import lookup
from apportion.records import Usage
from apportion.tokens import TokenCounter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from apportion.planner.replay.billing import CacheSplit


class Charge(NamedTuple):
    """What one call used, and its price in US dollars."""

    usage: Usage
    usd: float


class PretendedProvider:
    """Counts and charges calls as a provider with a prompt cache does.

    Args:
        model: Whose tokens and prices are used.
    """

    def __init__(self, model: str) -> None:
        self.tariff = tariff(lookup(model))
        self._counter = TokenCounter(model)
        self._cached: dict[bytes, datetime] = {}

    def cut(self, output: str, most: int | None) -> str:
        """Return as many leading lines of an output as the model may write; `None` is no limit."""
        lines = output.splitlines()
        while most is not None and lines and self._counter.estimate("\n".join(lines)).tokens > most:
            lines.pop()
        return "\n".join(lines) if most is not None else output

    def charge(self, prompt: Sequence[str], output: str, now: datetime) -> Charge:
        """Charge one call, and keep its prompt for the time that the provider's cache lives.

        Args:
            prompt: The texts of the prompt, in order.
            output: What the model wrote.
            now: The time of the call.
        """
        tokens = [self._counter.estimate(text).tokens for text in prompt]
        places = list(_places(prompt))
        alive = [number for number, place in enumerate(places) if self._alive(place, now)]
        cached = sum(tokens[: max(alive) + 1]) if alive else 0
        split = split_prompt(sum(tokens), cached, self.tariff.min_cached_tokens)
        self._cached |= dict.fromkeys(places, now)
        written = self._counter.estimate(output).tokens
        return Charge(_usage(split, written), self.tariff.cost(split, written))

    def _alive(self, place: bytes, now: datetime) -> bool:
        seen = self._cached.get(place)
        return seen is not None and (now - seen).total_seconds() <= self.tariff.ttl_s


def _places(prompt: Sequence[str]) -> list[bytes]:
    """Return a digest of each beginning of a prompt."""
    places, digest = [], hashlib.sha256()
    for text in prompt:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8) + data)
        places.append(digest.digest())
    return places


def _usage(split: CacheSplit, output: float) -> Usage:
    return Usage(
        input_uncached=round(split.uncached),
        cache_read=round(split.read),
        cache_write_5m=round(split.written),
        output=round(output),
    )
