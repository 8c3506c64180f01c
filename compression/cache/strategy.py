"""A strategy whose results are kept: the same content for the same purpose is made shorter once.

What is kept is what was proved: a result is validated before it is kept, and belongs to the original whose digest it
carries. Originals are not kept with it. A result whose handles are no longer good is made anew.
"""

from __future__ import annotations

import hashlib
import json
import struct
import threading
from collections import OrderedDict
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from apportion.compression.cache.keys import CacheKey
from apportion.compression.store import Handle, HandleStore
from apportion.compression.strategies.types import BaseStrategy, Estimate, Gap, Outcome, Span, Verdict, count_bytes
from apportion.errors import InputError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from apportion.compression.cache.memory import Cache
    from apportion.compression.strategies.types import Item, Query, Strategy

PROVED = 10_000
"""Results that are remembered as proved, so that validating them again costs two digests."""

_VERSION = 1


class CachedStrategy(BaseStrategy):
    """Another strategy, and what it made before.

    Args:
        strategy: Makes what is not known.
        cache: Keeps what it made.
        tenant_salt: Bytes that tenants do not share, so that they do not share results either.
        parameters: What else its results depend on; `None` takes them from its attributes.
        tokenizer: Name of what `count` counts with.
        model_hash: Hash of the model that has a part in it; empty where none has.
        count: What counts tokens; for queries with another count nothing is kept.

    Raises:
        InputError: The parameters are not given, and are not plain values.
    """

    def __init__(
        self,
        strategy: Strategy,
        cache: Cache,
        *,
        tenant_salt: bytes,
        parameters: Mapping[str, Any] | None = None,
        tokenizer: str = "o200k_base",
        model_hash: str = "",
        count: Callable[[bytes], int] = count_bytes,
    ) -> None:
        self.name = strategy.name
        self.strategy = strategy
        self.cache = cache
        self.count = count
        self._salt = tenant_salt
        self._tokenizer = tokenizer
        self._model_hash = model_hash
        self._parameters = {
            "strategy": _parameters_of(strategy) if parameters is None else dict(parameters),
            "apportion": version("apportion"),
            "form": _VERSION,
        }
        self._stores = tuple(_stores_of(strategy))
        self._proved: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.Lock()
        self._key(b"", {}).digest()  # says at once what cannot be part of a key

    def estimate(self, item: Item, query: Query) -> Estimate:
        """Say what the other strategy says."""
        return self.strategy.estimate(item, query)

    def execute(self, item: Item, target_tokens: int | None, query: Query) -> Outcome:
        """Return what was made of an item before, or make it now; never raises."""
        try:
            if query.count == self.count:
                return self._kept(item, target_tokens, query)
            return self._made(item, target_tokens, query)
        except _PassingError as error:
            return error.outcome

    def _kept(self, item: Item, target_tokens: int | None, query: Query) -> Outcome:
        made: list[Outcome] = []

        def make() -> bytes:
            made.append(self._made(item, target_tokens, query))
            return encode(made[0])

        key = self._key(item.content, _circumstances(item, target_tokens, query)).digest()
        kept = self.cache.get_or_compute(key, make)
        if made:
            return made[0]
        outcome = decode(kept, item.content)
        if outcome is None or not all(map(self._is_good, outcome.handles)):
            self.cache.discard(key)
            return decode(self.cache.get_or_compute(key, make), item.content) or self._made(item, target_tokens, query)
        self._remember(outcome)
        return outcome

    def validate(self, original: Item, result: Outcome) -> Verdict:
        """Accept what the other strategy accepts; what it has proved already is not proved again."""
        verdict = BaseStrategy.validate(self, original, result)
        if not verdict:
            return verdict
        with self._lock:
            proved = _digest(result) in self._proved
        return verdict if proved else self.strategy.validate(original, result)

    def _made(self, item: Item, target_tokens: int | None, query: Query) -> Outcome:
        """Return what the strategy makes of an item, proved, or the original.

        Raises:
            _PassingError: It made nothing of it for a reason that may be gone the next time.
        """
        from apportion.compression.pipeline import apply

        watched = _Watched(self.strategy)
        outcome = apply(watched, item, query, target_tokens=target_tokens)
        self._remember(outcome)
        if watched.raised or (self._stores and not outcome.changed):  # a store may have been full
            raise _PassingError(outcome)
        return outcome

    def _remember(self, outcome: Outcome) -> None:
        with self._lock:
            self._proved[_digest(outcome)] = None
            if len(self._proved) > PROVED:
                self._proved.popitem(last=False)

    def _is_good(self, handle: Handle) -> bool:
        """Say whether a store of ours has the original; it then counts as given out again."""
        try:
            return any(store.renew(handle) for store in self._stores)
        except StoreError:
            return False

    def _key(self, content: bytes, circumstances: Mapping[str, Any]) -> CacheKey:
        return CacheKey(
            tenant_salt=self._salt,
            strategy=self.name,
            content_hash=hashlib.sha256(content).digest(),
            parameters={**self._parameters, **circumstances},
            tokenizer=self._tokenizer,
            model_hash=self._model_hash,
        )


class _PassingError(Exception):
    """Takes an outcome past the cache that keeps what is computed."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome = outcome


class _Watched(BaseStrategy):
    """Another strategy, and whether it raised anything."""

    def __init__(self, strategy: Strategy) -> None:
        self.name = strategy.name
        self.estimate = strategy.estimate
        self.validate = strategy.validate  # type: ignore[method-assign]
        self.raised = False
        self._execute = strategy.execute

    def execute(self, item: Item, target_tokens: int | None, query: Query) -> Outcome:
        try:
            return self._execute(item, target_tokens, query)
        except Exception:
            self.raised = True
            raise


def encode(outcome: Outcome) -> bytes:
    """Return an outcome without its original: facts as JSON, then the content where that is not the original."""
    handles = list(dict.fromkeys((*outcome.handles, *(gap.handle for gap in outcome.gaps))))
    facts = {
        "version": _VERSION,
        "original": hashlib.sha256(outcome.original).hexdigest(),
        "changed": outcome.content != outcome.original,
        "tokens": outcome.tokens,
        "original_tokens": outcome.original_tokens,
        "steps": outcome.steps,
        "reasons": outcome.reasons,
        "stored": [(handle.short, handle.digest, handle.size) for handle in handles],
        "handles": [handles.index(handle) for handle in outcome.handles],
        "gaps": [
            (*gap.span, handles.index(gap.handle), gap.reason, gap.marker.decode("latin-1")) for gap in outcome.gaps
        ],
    }
    head = json.dumps(facts, separators=(",", ":")).encode()
    return struct.pack(">I", len(head)) + head + (outcome.content if facts["changed"] else b"")


def decode(kept: bytes, original: bytes) -> Outcome | None:
    """Return an outcome of an original, or `None` where what was kept is not one of it."""
    try:
        (size,) = struct.unpack_from(">I", kept)
        facts = json.loads(kept[4 : 4 + size])
        if facts["version"] != _VERSION or facts["original"] != hashlib.sha256(original).hexdigest():
            return None
        handles = [Handle(*stored) for stored in facts["stored"]]
        return Outcome(
            kept[4 + size :] if facts["changed"] else original,
            original,
            facts["tokens"],
            facts["original_tokens"],
            tuple(facts["steps"]),
            tuple(facts["reasons"]),
            tuple(handles[number] for number in facts["handles"]),
            tuple(
                Gap(Span(start, end), handles[number], reason, marker.encode("latin-1"))
                for start, end, number, reason, marker in facts["gaps"]
            ),
        )
    except (ValueError, KeyError, IndexError, TypeError, struct.error):
        return None


def _circumstances(item: Item, target_tokens: int | None, query: Query) -> dict[str, Any]:
    """Return what a result depends on beside the content and the strategy."""
    return {
        "name": item.name,
        "pinned": [tuple(span) for span in item.pinned],
        "held": [(held.label, hashlib.sha256(held.content).digest()) for held in item.held],
        "target_tokens": target_tokens,
        "task": query.task,
        "can_expand": query.can_expand,
        "nonce": query.nonce,
    }


def _parameters_of(strategy: Strategy) -> dict[str, Any]:
    """Return what a strategy was made with, and what it is made of."""
    found: dict[str, Any] = {"class": f"{type(strategy).__module__}.{type(strategy).__qualname__}"}
    for name, value in vars(strategy).items():
        if isinstance(value, HandleStore):
            continue
        found[name] = _plain(value, f"{strategy.name}.{name}")
    return found


def _plain(value: Any, name: str) -> Any:
    if value is None or isinstance(value, (str, bytes, int, float)):
        return value
    if isinstance(value, (tuple, list)):
        return [_plain(each, name) for each in value]
    if isinstance(value, dict):
        return {str(key): _plain(each, name) for key, each in value.items()}
    if hasattr(value, "execute") and hasattr(value, "estimate"):
        return _parameters_of(value)
    raise InputError(
        f"it cannot be told what {name} stands for in the results of a strategy",
        hint="Give CachedStrategy the parameters on which its results depend.",
    )


def _stores_of(strategy: Strategy) -> Iterator[HandleStore]:
    """Yield the stores of a strategy and of those that it is made of."""
    store = getattr(strategy, "store", None)
    if isinstance(store, HandleStore):
        yield store
    for part in (getattr(strategy, "strategy", None), *(getattr(strategy, "strategies", None) or ())):
        if part is not None:
            yield from _stores_of(part)


def _digest(outcome: Outcome) -> bytes:
    digest = hashlib.sha256(hashlib.sha256(outcome.original).digest())
    digest.update(hashlib.sha256(outcome.content).digest())
    facts = (outcome.tokens, outcome.original_tokens, outcome.steps, outcome.handles, outcome.gaps)
    digest.update(repr(facts).encode("utf-8", "surrogatepass"))
    return digest.digest()
